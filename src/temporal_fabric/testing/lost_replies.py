"""Trials in which the answers to a submit are lost: one effect each, counted by another process.

Every trial is one attempt. Up to three workers submit it, each through a fault that loses the
answer, the call, or the worker's patience; then sound workers submit it, up to three at once and
each until it has an answer. The ledger of the bench, which is a process of its own, has to have
seen the payload once.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from temporal_fabric.adapters.contract import Phase
from temporal_fabric.errors import PermanentBackendError, TransientBackendError
from temporal_fabric.testing.bench import Fault, Violation, patiently, require
from temporal_fabric.testing.conformance_starting import QUIET_S, REPORTING, began, ended

if TYPE_CHECKING:
    from temporal_fabric.adapters.contract import AttemptKey, AttemptSpec
    from temporal_fabric.testing.bench import Bench

_AT_ONCE = 8
_FURTHER = (Fault.LOST_REPLY, Fault.LOST_REQUEST, Fault.LATE_REPLY)
_PATIENCE_S = (0.05, 0.6)


@dataclass(frozen=True, slots=True)
class Trial:
    """What one attempt goes through."""

    name: str
    """Seed and number: the same name is the same trial."""

    faults: tuple[Fault, ...]
    """What each worker's submit meets, one after the other; the first answer is always lost."""

    patience_s: float
    """After how long a worker gives up that waits for a late answer."""

    racing: int
    """How many sound workers submit at once in the end."""

    @classmethod
    def drawn(cls, seed: int, number: int) -> Trial:
        """Return the trial of a seed with this number."""
        name = f"{seed}/{number}"
        random = Random(name)  # noqa: S311 - to repeat it
        further = random.choices(_FURTHER, k=random.randint(0, 2))
        return cls(
            name,
            (Fault.LOST_REPLY, *further),
            random.uniform(*_PATIENCE_S),
            random.randint(1, 3),
        )


@dataclass(slots=True)
class Tally:
    """What a number of trials came to."""

    trials: int = 0
    submits: int = 0
    spoiled: int = 0
    """Submits on the way of which a fault stood; not all come as far as that."""

    effects: int = 0
    questions: int = 0

    def __str__(self) -> str:
        asked = f", {self.questions} questions to a person" if self.questions else ""
        return (
            f"{self.trials} attempts, {self.submits} submits, {self.spoiled} of them under a "
            f"fault, {self.effects} effects{asked}"
        )


async def lose_replies(bench: Bench, count: int, seed: int) -> Tally:
    """Run trials, some at once where the backend takes more than one attempt.

    Args:
        bench: Of the adapter; stays open.
        count: How many trials.
        seed: Of the first; the same seed and count are the same trials.

    Raises:
        Violation: an attempt had more than one effect, or none and no person is asked, or came to
            no end; its name is said.
    """
    tally = Tally()
    at_once = min(_AT_ONCE, bench.adapter().slots or _AT_ONCE)
    for first in range(0, count, at_once):
        trials = [Trial.drawn(seed, n) for n in range(first, min(count, first + at_once))]
        keys = [bench.key() for _ in trials]
        try:
            pairs = list(zip(trials, keys, strict=True))
            await asyncio.gather(*(_try(bench, trial, key, tally) for trial, key in pairs))
            await asyncio.sleep(QUIET_S)
            for trial, key in pairs:
                _count(bench, trial, key, tally)
        finally:
            await bench.settle()
    return tally


async def _try(bench: Bench, trial: Trial, key: AttemptKey, tally: Tally) -> None:
    attempt = bench.attempt(key, REPORTING.format(seconds=0.3))
    for fault in trial.faults:
        await _submit_under(fault, bench, attempt, trial, tally)
    sound = [bench.adapter() for _ in range(trial.racing)]
    try:
        await asyncio.gather(*(patiently(partial(each.submit, attempt)) for each in sound))
    except (PermanentBackendError, TimeoutError) as exc:
        raise Violation(f"{trial}: a racing submit adopts, or is transient: {exc!r}") from exc
    tally.submits += trial.racing
    status = await patiently(partial(ended, bench.adapter(), key))
    asked = bench.asks_people and bool(status.question)
    well = status.phase is Phase.ENDED and (status.exit_code == 0 or asked)
    require(well, f"{trial}: the attempt ends well, or a person is asked: {status}")
    # Where a person is asked, the attempt ends before what it does.
    with suppress(TimeoutError):
        await began(bench, key, "end")
    tally.questions += asked


async def _submit_under(
    fault: Fault, bench: Bench, attempt: AttemptSpec, trial: Trial, tally: Tally
) -> None:
    worker = await bench.faulty("submit", fault)
    limit_s = trial.patience_s if fault is Fault.LATE_REPLY else None
    tally.submits += 1
    tally.spoiled += 1
    try:
        with suppress(TransientBackendError, TimeoutError):
            async with asyncio.timeout(limit_s):
                await worker.submit(attempt)
    finally:
        await worker.aclose()


def _count(bench: Bench, trial: Trial, key: AttemptKey, tally: Tally) -> None:
    # Where a person is asked, a call that was lost on a slow machine before it arrived is as right.
    right = {0, 1} if bench.asks_people else {1}
    for event in ("start", "end"):
        seen = bench.effects(key, event)
        require(seen in right, f"{trial}: one attempt is one effect: {event!r} seen {seen} times")
    tally.trials += 1
    tally.effects += bench.effects(key, "start")
