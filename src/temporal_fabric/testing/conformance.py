"""The conformance suite of the adapter contract: the same cases over every adapter.

With pytest, over an adapter of one's own::

    @pytest.mark.parametrize("case", CASES, ids=str)
    async def test_conforms(case: Case, bench: Bench) -> None:
        await case.run(bench)

or without it, with a report: ``report = await conform(bench)``. A case needs a
`temporal_fabric.testing.bench.Bench`, which makes the adapter, and counts effects by a ledger
in another process; it never asks the adapter whether the adapter is right.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from importlib.metadata import entry_points, version
from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters.conformance_report import (
    FAILED,
    NOT_APPLICABLE,
    NOT_SHOWN,
    PASSED,
    Outcome,
    Report,
)
from temporal_fabric.adapters.registry import GROUP
from temporal_fabric.clock import now
from temporal_fabric.testing.bench import NotApplicable, NotShown, Violation
from temporal_fabric.testing.conformance_ending import ENDING
from temporal_fabric.testing.conformance_faults import FAULTS
from temporal_fabric.testing.conformance_starting import STARTING

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from temporal_fabric.testing.bench import Bench

__all__ = ["CASES", "Case", "conform", "new_report"]

_DISTRIBUTION = "temporal-fabric"
_LONGEST_S = 150.0


@dataclass(frozen=True)
class Case:
    """One promise of the contract, tried."""

    _try: Callable[[Bench], Coroutine[Any, Any, None]]

    def __str__(self) -> str:
        return self._try.__name__

    @property
    def promise(self) -> str:
        """The promise, in a sentence."""
        return (self._try.__doc__ or "").strip()

    async def run(self, bench: Bench) -> None:
        """Try it, and end what it has started.

        Raises:
            Violation: the adapter breaks the promise.
            NotShown: the promise cannot be tried on this backend; as `NotApplicable`, the
                adapter does not make it.
            TimeoutError: a call does not return.
        """
        try:
            async with asyncio.timeout(_LONGEST_S):
                await self._try(bench)
        finally:
            await bench.settle()

    async def judge(self, bench: Bench) -> Outcome:
        """Try it and return how that went; an error of any kind is a failure."""
        since = time.monotonic()
        verdict, why = PASSED, ""
        try:
            await self.run(bench)
        except NotApplicable as exc:
            verdict, why = NOT_APPLICABLE, str(exc)
        except NotShown as exc:
            verdict, why = NOT_SHOWN, str(exc)
        except Violation as exc:
            verdict, why = FAILED, str(exc)
        except Exception as exc:  # noqa: BLE001 - whatever leaves an adapter is its failure
            verdict, why = FAILED, f"{type(exc).__name__}: {exc}"
        return Outcome(str(self), verdict, why, round(time.monotonic() - since, 3))


CASES: tuple[Case, ...] = tuple(Case(case) for case in (*STARTING, *ENDING, *FAULTS))
"""Every case, in an order in which the simpler ones come first."""


def new_report(bench: Bench) -> Report:
    """Return an empty report of the bench's adapter."""
    kind = bench.adapter().kind
    ships = [entry.dist for entry in entry_points(group=GROUP) if entry.name == kind]
    found = ships[0].version if ships and ships[0] is not None else "unknown"
    return Report(kind, found, version(_DISTRIBUTION), now(), bench.variant)


async def conform(bench: Bench, cases: Sequence[Case] = CASES) -> Report:
    """Run the suite and return its report.

    Args:
        bench: Of the adapter; stays open.
        cases: The cases to run.
    """
    report = new_report(bench)
    for case in cases:
        report.outcomes.append(await case.judge(bench))
    return report
