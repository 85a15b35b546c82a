"""How long a payload may run."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


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
