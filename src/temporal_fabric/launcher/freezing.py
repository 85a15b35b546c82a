"""Freezing an attempt: its whole tree stands still, and so does its wall limit.

A frozen tree keeps its memory, its pids and its open files. It stays frozen until somebody
thaws it or ends it; the launcher's own end takes it along like any other.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from temporal_fabric.launcher.protocol import TRANSIENT, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from temporal_fabric.launcher.live import Attempt
    from temporal_fabric.launcher.protocol import LaunchRecord


class WallLimit:
    """The time a payload may run, counted only while it is not frozen.

    Args:
        limit_s: The limit; None for none.
        expired: Called once when it is used up.
    """

    def __init__(self, limit_s: float | None, expired: Callable[[], None]) -> None:
        self._left_s, self._expired = limit_s, expired
        self._timer: asyncio.TimerHandle | None = None
        self._over = False

    def go(self) -> None:
        """Let it count."""
        if self._left_s is not None and self._timer is None and not self._over:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._left_s, self._expired)

    def halt(self) -> None:
        """Let it stand still."""
        if self._timer is not None:
            self._left_s = max(self._timer.when() - asyncio.get_running_loop().time(), 0.0)
            self._timer.cancel()
            self._timer = None

    def drop(self) -> None:
        """Forget it: the payload has ended, or is being ended."""
        self.halt()
        self._over = True


async def freeze(attempt: Attempt, pool: Executor) -> LaunchRecord:
    """Stop every process of an attempt; repeating it changes nothing.

    Raises:
        RefusedError: transient; some of it does not stand still yet.
    """
    await attempt.tried.wait()
    async with attempt.freezing:
        if attempt.why is None and not attempt.reaped and attempt.record.frozen_at is None:
            loop = asyncio.get_running_loop()
            still = await loop.run_in_executor(pool, attempt.tree.freeze)
            if not still and not attempt.reaped:
                await loop.run_in_executor(pool, attempt.tree.thaw)
                raise RefusedError(TRANSIENT, f"does not stand still [key={attempt.spec.key}]")
            attempt.wall.halt()
            attempt.record = replace(attempt.record, frozen_at=time.time())
    return attempt.record


async def thaw(attempt: Attempt, pool: Executor) -> LaunchRecord:
    """Let every process of an attempt go on; repeating it changes nothing."""
    async with attempt.freezing:
        since = attempt.record.frozen_at
        if since is not None:
            await asyncio.get_running_loop().run_in_executor(pool, attempt.tree.thaw)
            stood_s = attempt.record.frozen_s + max(time.time() - since, 0.0)
            attempt.record = replace(attempt.record, frozen_at=None, frozen_s=stood_s)
            attempt.wall.go()
    return attempt.record
