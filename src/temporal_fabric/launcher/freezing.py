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
    from concurrent.futures import Executor

    from temporal_fabric.launcher.live import Attempt
    from temporal_fabric.launcher.protocol import LaunchRecord


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
