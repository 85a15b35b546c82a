"""The conformance suite finds every fault that was planted for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from temporal_fabric.adapters.conformance_report import FAILED
from temporal_fabric.testing.broken_adapters import PLANTED, Broken, PlantedBench
from temporal_fabric.testing.conformance import CASES

if TYPE_CHECKING:
    from temporal_fabric.testing.local_bench import LocalBench

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.__name__)
async def test_is_found(planted: type[Broken], bench: LocalBench) -> None:
    """A planted fault fails a case that is named for it, by a broken promise or an error."""
    cases = [case for case in CASES if str(case) in planted.caught_by]
    assert len(cases) == len(planted.caught_by) > 0
    outcomes = [await case.judge(PlantedBench(bench, planted)) for case in cases]
    assert FAILED in {found.verdict for found in outcomes}, outcomes
    print(*(f"{found.case}: {found.why}" for found in outcomes), sep="\n")
