"""The line of those who wait for GPUs of this worker's host, before they wait for a place.

Strictly in order, so that a request for many is not passed for ever by requests for one. What is
promised here is a forecast of this worker alone; the reservation that an attempt makes is what
counts, and an attempt that comes too late for it waits on.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from bisect import bisect_left, insort
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from temporal_fabric.activities.capacity import UNCLAIMED_S
from temporal_fabric.adapters.capabilities import GivingGpus
from temporal_fabric.gpus.devices import asked_of
from temporal_fabric.states import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from temporal_fabric.activities.desk import Desk
    from temporal_fabric.requests.models import ExecutionRequest

_Row = tuple[int, str, int, str]
"""Negative priority, since when, in which order, who: the least comes first."""

_LOOK_S = 1.0
"""Other workers, and payloads that have ended, free devices without a word."""


class Turn(NamedTuple):
    """Who waits, how urgent it is, and since when it waits."""

    key: str
    priority: int
    since: str


class GpuLine:
    """Who waits for GPUs at one worker, and to whom which ones are promised."""

    def __init__(self) -> None:
        self._line: list[_Row] = []
        self._waits: dict[str, tuple[tuple[str, ...], int]] = {}
        self._promised: dict[str, tuple[frozenset[str], float]] = {}
        self._order = itertools.count()
        self._moved = asyncio.Event()

    async def free(
        self, desk: Desk, backends: Sequence[str], request: ExecutionRequest, turn: Turn
    ) -> list[str]:
        """Return the backends that have what a request asks for; wait until one has.

        One that does not give GPUs of this host has its own queue, and is returned at once.

        Args:
            desk: Whose backends they are.
            backends: Those that fit, at least one.
            request: An admitted request.
            turn: Its place in line.

        Raises:
            TransientBackendError: a backend cannot say what is free.
        """
        asked, key = asked_of(request), turn.key
        if not asked:
            return list(backends)
        queueing = [name for name in backends if not isinstance(desk.backend(name), GivingGpus)]
        if queueing:
            # Nobody in line is passed where it waits.
            return await self._look(desk, queueing if self._line else backends, request, key)
        row: _Row = (-turn.priority, turn.since, next(self._order), key)
        self._waits[key] = (tuple(backends), sum(entry.count for entry in asked))
        insort(self._line, row)
        try:
            return await self._stand(row, desk, backends, request)
        finally:
            del self._line[bisect_left(self._line, row)]
            self._waits.pop(key, None)
            self._call()

    async def _stand(
        self, row: _Row, desk: Desk, backends: Sequence[str], request: ExecutionRequest
    ) -> list[str]:
        while not all(desk.capacity(name).drained for name in backends):
            if self._line[0] == row:
                found = await self._look(desk, backends, request, row[-1])
                if found:
                    return found
            # Not `wait_for`: in Python 3.11 it may swallow a cancellation.
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._moved.wait()
        return list(backends)  # where it waits, its reason is told, or it is handed back

    def took(self, key: str) -> None:
        """Forget a promise: the devices are reserved, or not wanted any more."""
        self._promised.pop(key, None)
        self._call()

    def waiting(self, key: str) -> dict[str, Any]:
        """Return for how many GPUs an experiment waits; empty where it waits for none."""
        if key not in self._waits:
            return {}
        backends, count = self._waits[key]
        ahead = next(place for place, turn in enumerate(self._line) if turn[-1] == key)
        return {
            "reason": Reason.WAITING_FOR_CAPACITY,
            "backend": backends[0],
            "ahead": ahead,
            "gpus": count,
        }

    def waiting_on(self, backend: str) -> int:
        """Return how many wait for GPUs of a backend."""
        return sum(backend in backends for backends, _ in self._waits.values())

    def _call(self) -> None:
        """Let those in line look again."""
        self._moved.set()
        self._moved = asyncio.Event()

    async def _look(
        self, desk: Desk, backends: Sequence[str], request: ExecutionRequest, key: str
    ) -> list[str]:
        found = list[str]()
        oldest = time.monotonic() - UNCLAIMED_S
        self._promised = {k: p for k, p in self._promised.items() if p[1] > oldest and k != key}
        taken = frozenset[str]().union(*(ids for ids, _ in self._promised.values()))
        for backend in backends:
            adapter = desk.backend(backend)
            if not isinstance(adapter, GivingGpus):
                found.append(backend)
            elif (ids := await adapter.free_gpus(request, taken)) is not None:
                found.append(backend)
                self._promised.setdefault(key, (frozenset(ids), time.monotonic()))
        return found
