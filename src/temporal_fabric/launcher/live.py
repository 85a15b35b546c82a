"""A live attempt as its launcher knows it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from temporal_fabric.launcher.log_cap import LogCap
from temporal_fabric.launcher.protocol import HOME_ENV, KEY_ENV
from temporal_fabric.launcher.wall_limit import WallLimit

if TYPE_CHECKING:
    from collections.abc import Callable

    from temporal_fabric.launcher.door import Door
    from temporal_fabric.launcher.protocol import LaunchRecord, LaunchSpec
    from temporal_fabric.launcher.sandboxed import Report
    from temporal_fabric.launcher.trees import Tree


@dataclass(frozen=True, slots=True)
class Identity:
    """Which launcher this is."""

    home: str
    incarnation: str
    boot_id: str

    def marks(self, key: str) -> dict[str, str]:
        """Return the variables by which every process of an attempt is known."""
        return {KEY_ENV: key, HOME_ENV: self.home}


class Attempt:
    """A live attempt."""

    def __init__(self, spec: LaunchSpec, record: LaunchRecord, tree: Tree) -> None:
        self.spec, self.record, self.tree = spec, record, tree
        self.ended: asyncio.Future[LaunchRecord] = asyncio.get_running_loop().create_future()
        self.tried = asyncio.Event()
        """Set when the exec has succeeded or failed."""

        self.error = ""
        self.why: str | None = None
        self.pid: int | None = None
        """In the launcher's namespace; None before the fork and after the reaping."""

        self.reaped = False
        self.report: Report | None = None
        """Where a sandbox tells the payload's true end."""

        self.door: Door | None = None
        """Where a sandbox is asked to run a command beside the payload."""

        self.log_cap = LogCap(spec) if spec.limits.log_bytes else None

        self.freezing = asyncio.Lock()
        self.wall = WallLimit(None, lambda: None)
        self.kill_at = float("inf")
        self.timers: dict[str, asyncio.TimerHandle] = {}

    def arm(self, name: str, delay_s: float, action: Callable[[], None]) -> None:
        """Start a timer, replacing the one of the same name."""
        self.disarm(name)
        self.timers[name] = asyncio.get_running_loop().call_later(delay_s, action)

    def disarm(self, name: str) -> None:
        """Stop a timer."""
        if timer := self.timers.pop(name, None):
            timer.cancel()
