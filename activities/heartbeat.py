"""Heartbeats beside the work.

A task handed to a dead poll comes back only by a timeout, and a cancellation arrives only
with a heartbeat: so every activity beats, also the ones that take a second.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from temporalio import activity

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

_FIRST_S = 0.5
_INTERVAL_S = 2.0


@asynccontextmanager
async def beating(
    details: Callable[[], Any] | None = None, least_s: Callable[[], float] = lambda: 0.0
) -> AsyncGenerator[None]:
    """Heartbeat after half a second and then every two, while the block runs.

    Each beat is a write of the server, so what is over at once does without.

    Args:
        details: Called at each beat; only the latest value is kept by the server.
        least_s: Called before each beat: how long the pause is at least; below half the
            activity's heartbeat timeout.
    """

    async def beat() -> None:
        await asyncio.sleep(max(_FIRST_S, least_s()))
        while True:
            activity.heartbeat(*(() if details is None else (details(),)))
            await asyncio.sleep(max(_INTERVAL_S, least_s()))

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
