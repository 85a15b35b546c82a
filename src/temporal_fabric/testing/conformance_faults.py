"""Conformance: a missing or meaningless answer is unknown, and unknown is not absent."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters.contract import JobHandle, Phase
from temporal_fabric.errors import TransientBackendError
from temporal_fabric.testing.bench import Bench, Fault, NotShown, Violation, require
from temporal_fabric.testing.conformance_starting import REPORTING, began, ended

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from temporal_fabric.adapters.contract import Adapter, AttemptSpec

_GARBAGE_SHAPES = 8
_CALLS: dict[str, Callable[[Adapter, AttemptSpec], Awaitable[Any]]] = {
    "find": lambda adapter, attempt: adapter.find(attempt.key),
    "get_status": lambda adapter, attempt: adapter.get_status(JobHandle(attempt.key, "")),
    "wait": lambda adapter, attempt: adapter.wait(JobHandle(attempt.key, ""), 0.1),
    "terminate": lambda adapter, attempt: adapter.terminate(attempt.key, 0.0),
    "forget": lambda adapter, attempt: adapter.forget(attempt.key),
    "submit": lambda adapter, attempt: adapter.submit(attempt),
}


async def _unknown(bench: Bench, call: str, fault: Fault, attempt: AttemptSpec) -> None:
    """Call under a fault: it may overcome it, or be transient; no other error may come out."""
    if call in bench.answered_here:
        return
    adapter = await bench.faulty(call, fault)
    try:
        found = await _CALLS[call](adapter, attempt)
    except TransientBackendError:
        return
    except NotShown:
        raise
    except Exception as exc:
        raise Violation(f"{call} under {fault} is a transient error: {exc!r}") from exc
    phase = getattr(found, "phase", None)
    require(phase is not Phase.ABSENT, f"{call} under {fault} never says ABSENT: {found}")
    mad = fault in {Fault.GARBAGE, Fault.AWAY}
    require(not mad, f"{call} under {fault} knows nothing, and says so: {found}")


async def _running(bench: Bench, seconds: float) -> AttemptSpec:
    attempt = bench.attempt(bench.key(), REPORTING.format(seconds=seconds))
    await bench.adapter().submit(attempt)
    await began(bench, attempt.key)
    return attempt


async def a_look_without_an_answer_is_unknown(bench: Bench) -> None:
    """A look that is lost on its way there or back is never ABSENT, and changes nothing."""
    attempt = await _running(bench, 2.0)
    for call in ("find", "get_status", "wait"):
        for fault in (Fault.LOST_REQUEST, Fault.LOST_REPLY, Fault.LATE_REPLY):
            await _unknown(bench, call, fault, attempt)
    status = await ended(bench.adapter(), attempt.key)
    require(status.exit_code == 0, f"the job has not noticed: {status}")
    require(bench.effects(attempt.key, "end") == 1, "the job ran once")


async def a_terminate_without_an_answer_is_repeated(bench: Bench) -> None:
    """A terminate that is lost on its way there or back is transient; repeated, it proves."""
    for fault in (Fault.LOST_REQUEST, Fault.LOST_REPLY, Fault.LATE_REPLY):
        attempt = await _running(bench, 120.0)
        await _unknown(bench, "terminate", fault, attempt)
        status = await bench.adapter().terminate(attempt.key, 0.0)
        require(status.phase in {Phase.ENDED, Phase.LOST}, f"it has an end: {status}")
        require(bench.effects(attempt.key, "end") == 0, "it did not end by itself")


async def a_forget_without_an_answer_is_repeated(bench: Bench) -> None:
    """A forget that is lost on its way there or back is transient, and can be repeated."""
    for fault in (Fault.LOST_REQUEST, Fault.LOST_REPLY, Fault.LATE_REPLY):
        attempt = await _running(bench, 0.0)
        await ended(bench.adapter(), attempt.key)
        await _unknown(bench, "forget", fault, attempt)
        await bench.adapter().forget(attempt.key)


async def a_backend_that_is_away_is_unknown(bench: Bench) -> None:
    """No call to a backend that does not answer returns; each is a transient error."""
    running = await _running(bench, 120.0)
    attempt = bench.attempt(bench.key(), REPORTING.format(seconds=0))
    calls = ("find", "get_status", "wait", "terminate", "forget")
    # At once, for each of them waits as long as the adapter is patient.
    await asyncio.gather(
        _unknown(bench, "submit", Fault.AWAY, attempt),
        *(_unknown(bench, call, Fault.AWAY, running) for call in calls),
    )
    require(bench.effects(attempt.key, "start") == 0, "nothing ran")


async def garbage_is_unknown(bench: Bench) -> None:
    """An answer that means nothing is a transient error; no shape of it leaks or is believed."""
    for call in {"find", "wait", "terminate"} - bench.answered_here:
        attempt = await _running(bench, 120.0)
        adapter = await bench.faulty(call, Fault.GARBAGE)
        for _ in range(_GARBAGE_SHAPES):
            try:
                found = await _CALLS[call](adapter, attempt)
            except TransientBackendError:
                continue
            except Exception as exc:
                raise Violation(f"{call} of garbage is a transient error: {exc!r}") from exc
            raise Violation(f"{call} believes garbage: {found}")
        await bench.adapter().terminate(attempt.key, 0.0)


async def nothing_is_left(bench: Bench) -> None:
    """After its end and `aclose` an adapter leaves no open file, no task and nothing running."""
    # The first job may start the backend, and load modules.
    await _whole_life(bench)
    before = _held()
    await _whole_life(bench)
    after = _held()
    require(after <= before, f"open files and tasks are closed: {before} before, {after} after")
    adapter = bench.adapter()
    inventory = await adapter.inventory()
    require(inventory.running == 0, f"the inventory counts nothing: {inventory}")
    require(inventory.kind == adapter.kind, f"the kind is its own: {inventory}")
    require(inventory.name == adapter.get_name(), f"the name is its own: {inventory}")


async def _whole_life(bench: Bench) -> None:
    adapter, attempt = bench.make(), bench.attempt(bench.key(), "report('start')")
    try:
        await adapter.submit(attempt)
        await ended(adapter, attempt.key)
        await adapter.terminate(attempt.key, 0.0)
        await adapter.forget(attempt.key)
    finally:
        await adapter.aclose()


def _held() -> int:
    tasks = [task for task in asyncio.all_tasks() if not task.done()]
    return len(os.listdir("/proc/self/fd")) + len(tasks)  # noqa: PTH208 - only their number


FAULTS = (
    a_look_without_an_answer_is_unknown,
    a_terminate_without_an_answer_is_repeated,
    a_forget_without_an_answer_is_repeated,
    a_backend_that_is_away_is_unknown,
    garbage_is_unknown,
    nothing_is_left,
)
