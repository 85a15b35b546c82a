"""How many attempts a host's backend runs at once.

A pending experiment is a pending `acquire`; it waits here until the backend has a free
place. Nothing here must survive the worker: a lease is taken again by the attempt it was
granted for, also after an adoption, so a restart at worst runs a few attempts more at once.
That the backend is drained does survive, in its mark: then the line stands still.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from bisect import bisect_left, insort
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from temporal_fabric.draining import Drained, DrainMark

_Turn = tuple[int, str, int, str]
"""Negative priority, since when, in which order, who: the least comes first."""

UNCLAIMED_S = 60.0
"""A granted place whose attempt does not come in this time was given up: cancelled, or lost."""


class Capacity:
    """The places of one backend.

    Args:
        slots: Attempts at once; None where the backend has a queue of its own.
        mark: Where it is kept that the backend is drained.
    """

    def __init__(self, slots: int | None, mark: DrainMark) -> None:
        self.slots = slots
        self.mark = mark
        self._running: set[str] = set()
        self._leaving: set[str] = set()
        self._granted: dict[str, float] = {}
        self._line: list[_Turn] = []
        self._turns: dict[str, _Turn] = {}
        self._calls: dict[_Turn, asyncio.Event] = {}
        self._order = itertools.count()

    @property
    def used(self) -> int:
        """Places taken now."""
        return len(self._running | self._granted.keys())

    @property
    def running(self) -> int:
        """Places of attempts that this worker supervises."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """How many wait for a place in this worker."""
        return len(self._line)

    @property
    def drained(self) -> Drained | None:
        """Since when and why no place is granted; None where places are."""
        return self.mark.read()

    def position(self, key: str) -> int | None:
        """Return how many wait before ``key`` in this worker, or None where it does not wait."""
        turn = self._turns.get(key)
        return None if turn is None else bisect_left(self._line, turn)

    async def grant(self, key: str, priority: int, since: str = "") -> bool:
        """Wait for a place: the most urgent first, then who has waited longest.

        Args:
            key: Who waits; one that has a place gets no second one.
            priority: 1 to 10, 10 most urgent.
            since: When its wait began, as a stamp: asking again keeps the place in line.

        Returns:
            Whether this call took the place; False where another had taken it for the same key.
        """
        turn = (-priority, since, next(self._order), key)
        call = self._calls[turn] = asyncio.Event()
        self._turns[key] = turn
        insort(self._line, turn)
        try:
            while not self._has(key):
                if self._free() and self._line[0] == turn:
                    self.hold(key)
                    return True
                call.clear()
                await _pause(call)
        finally:
            del self._line[bisect_left(self._line, turn)], self._calls[turn]
            if self._turns.get(key) == turn:
                del self._turns[key]
            self.call_first()
        return False

    def take(self, key: str) -> bool:
        """Take a place if one is free and nobody waits for it, or if ``key`` has one."""
        if not self._has(key) and not self._line and self._free():
            self.hold(key)
        return self._has(key)

    def hold(self, key: str) -> None:
        """Keep a place for an attempt that is about to come, also beyond the slots."""
        self._granted[key] = time.monotonic()

    def claim(self, key: str) -> None:
        """Take the place for a running attempt; an adopted one is never turned away."""
        self._granted.pop(key, None)
        self._running.add(key)

    def release(self, key: str) -> None:
        """Give the place back; repeating it changes nothing."""
        self._granted.pop(key, None)
        self._running.discard(key)
        self._leaving.discard(key)
        self.call_first()

    def gives_way(self, key: str, priority: int) -> bool:
        """Say whether who runs is to leave its place, because more urgent ones wait for it.

        No more are told to leave than make room for those; who was told so is told it again.

        Args:
            key: Who runs, and can go on later from where it stands.
            priority: 1 to 10, its own.
        """
        if key not in self._leaving and self._is_short_of(priority):
            self._leaving.add(key)
        return key in self._leaving

    def _is_short_of(self, priority: int) -> bool:
        """Say whether those in line who are more urgent than this need further places."""
        urgent = sum(-turn[0] > priority for turn in self._line)
        if self.slots is None or not urgent or self.drained is not None:
            return False
        return urgent > self.slots - self.used + len(self._leaving)

    def call_first(self) -> None:
        """Let the first in line look again whether there is a place."""
        # Waking all of a long line for each place would cost more than the place.
        if self._line:
            self._calls[self._line[0]].set()

    def _has(self, key: str) -> bool:
        return key in self._running or key in self._granted

    def _free(self) -> bool:
        oldest = time.monotonic() - UNCLAIMED_S
        self._granted = {key: at for key, at in self._granted.items() if at > oldest}
        if self.slots is not None and self.used >= self.slots:
            return False
        return self.drained is None


async def _pause(call: asyncio.Event) -> None:
    # The limit lets given-up grants expire while nothing else happens.
    # Not `wait_for`: in Python 3.11 it swallows a cancellation that meets a set event, as
    # it does when a worker that stops cancels many waiters at once.
    with suppress(TimeoutError):
        async with asyncio.timeout(5.0):
            await call.wait()
