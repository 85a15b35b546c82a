"""Waiting for a place: on whichever fitting backend has one first, as long as the request may."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from temporalio import activity
from temporalio.api.enums.v1 import PendingActivityState

from temporal_fabric.activities.handing_back import hand_back
from temporal_fabric.states import Reason

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from temporal_fabric.activities.desk import Desk
    from temporal_fabric.messages import AcquireInput


class Denied(Exception):
    """No place was found in time; the experiment ends with this reason."""

    def __init__(self, reason: Reason, message: str) -> None:
        self.reason = reason
        super().__init__(message)


@asynccontextmanager
async def before(moment: str, reason: Reason, message: str) -> AsyncGenerator[None]:
    """Deny what has not been done before a moment; an empty one never comes.

    Raises:
        Denied: it was not.
    """
    left_s = None
    if moment:
        left_s = (datetime.fromisoformat(moment) - datetime.now(UTC)).total_seconds()
    limit = asyncio.timeout(left_s)
    try:
        async with limit:
            yield
    except TimeoutError as exc:
        if not limit.expired():
            raise
        raise Denied(reason, message) from exc


async def place(desk: Desk, backends: Sequence[str], priority: int, asked: AcquireInput) -> str:
    """Wait for a place on one of some backends and return which it is.

    A free one is taken in the order given; else whichever has a place first. A place that came
    after the wait was called off is given back. Where all of them are drained, and another host
    takes from the pool, the experiment is handed back to it; also a flow whose checkpoint lies
    here, if it is in the store too.

    Args:
        desk: Whose backends they are.
        backends: Those that can run the request, the preferred first; at least one.
        priority: 1 to 10, 10 most urgent.
        asked: For the place in line; ``near``, where a flow was asked for here and may move.

    Raises:
        ApplicationError: it is handed back.
    """
    key = activity.info().workflow_id or ""
    for backend in backends:
        if desk.capacity(backend).take(key):
            return backend
    waits = [
        asyncio.create_task(desk.capacity(backend).grant(key, priority, asked.since))
        for backend in backends
    ]
    leaving = asyncio.create_task(hand_back(desk, backends, moves=asked.near))
    chosen = ""
    try:
        await asyncio.wait([*waits, leaving], return_when=asyncio.FIRST_COMPLETED)
        if not any(wait.done() for wait in waits):
            await leaving
        chosen = next(name for name, wait in zip(backends, waits, strict=True) if wait.done())
    finally:
        for wait in (*waits, leaving):
            wait.cancel()
        await asyncio.gather(*waits, leaving, return_exceptions=True)
        for backend, wait in zip(backends, waits, strict=True):
            if backend != chosen and not wait.cancelled() and wait.result():
                desk.capacity(backend).release(key)
    took = waits[list(backends).index(chosen)].result()
    if took and await _called_off():
        desk.capacity(chosen).release(key)
        await asyncio.Event().wait()  # until the cancellation arrives with a heartbeat
    return chosen


def waiting(desk: Desk, key: str) -> dict[str, Any]:
    """Return for what kind of place an experiment waits; empty where it waits for none.

    It is held up by a drained backend only where every backend that fits is drained.
    """
    drained: dict[str, str] = {}
    for backend in desk.backends:
        ahead = desk.capacity(backend).position(key)
        if ahead is None:
            continue
        mark = desk.capacity(backend).drained
        if mark is None:
            return {"reason": Reason.WAITING_FOR_CAPACITY, "backend": backend, "ahead": ahead}
        drained[backend] = str(mark)
    return {"reason": Reason.DRAINED, "drained": drained} if drained else {}


async def _called_off() -> bool:
    """Ask the server whether this activity is cancelled: it knows before we are told."""
    info = activity.info()
    handle = activity.client().get_workflow_handle(
        info.workflow_id or "", run_id=info.workflow_run_id
    )
    pending = (await handle.describe()).raw_description.pending_activities
    return any(
        known.activity_id == info.activity_id
        and known.state == PendingActivityState.PENDING_ACTIVITY_STATE_CANCEL_REQUESTED
        for known in pending
    )
