"""What an experiment enters and tells: from its host while it runs, then from its capsule.

States come from the workflow, events from what the recorder sealed. Each is given once, and in
the order of their times as far as they are known: an attempt seals everything that its payload
told before it says that outputs are collected.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from temporal_fabric.cancelling import check_cancelled
from temporal_fabric.clock import now
from temporal_fabric.errors import ServerUnavailable
from temporal_fabric.logs import is_here, reachable
from temporal_fabric.messages import EVENTS, SEALED_EVENTS, ReadInput
from temporal_fabric.recorder.told import STATE, live_events, sealed_events
from temporal_fabric.states import State
from temporal_fabric.workplace import Workplace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping
    from pathlib import Path

    from temporal_fabric.capsule.reading import Capsule
    from temporal_fabric.config import Settings
    from temporal_fabric.logs import Watched
    from temporal_fabric.status import ExperimentStatus

Event = dict[str, Any]

_POLL_S = 0.5
_LOOKS = 60
"""How often a look may find an attempt gone and its end not known: half a minute."""


async def read_events(handle: Watched, settings: Settings) -> AsyncIterator[Event]:
    """Yield states, the payload's events and heartbeats until the experiment ends.

    Args:
        handle: The experiment.
        settings: Where this host keeps its working folders.

    Yields:
        ``{"event": "state", "at", "state", "reason", "backend", "epoch"}``, or
        ``{"event", "at", "epoch", "detail"}`` for what the payload or the recorder told
        (``missing`` where nothing that has it answers), or ``{"event": "heartbeat", ...}``, or
        ``{"event": "away", "at", "problem"}`` while the server does not answer: it is waited for.

    Raises:
        ExperimentNotFound: there is no such experiment.
    """
    reader = _Reader(handle, settings)
    beat, stands, away = dict[str, Any](), "", False
    while True:
        check_cancelled()
        try:
            status = await handle.status(detail=False)
            if status.state != stands or status.final:
                stands, status = status.state, await handle.status()
        except ServerUnavailable as exc:
            if not away:
                yield {"event": "away", "at": now(), "problem": str(exc)}
            away = True
            await asyncio.sleep(_POLL_S)
            continue
        away = False
        for event in await reader.look(status):
            yield event
        if status.final:
            return
        if status.live and status.live != beat:
            beat = status.live
            yield {"event": "heartbeat", **beat}
        await asyncio.sleep(_POLL_S)


def recorded_events(status: ExperimentStatus) -> list[Event]:
    """Return the events of an experiment that has ended, from its timeline and its capsule."""
    capsule = reachable(status)
    told = [] if capsule is None else _from_capsule(capsule)
    return _in_order([*_states(status.timeline), *told])


class _SealedMeanwhile(Exception):
    """The host keeps the attempt no more, and the status read before did not know it."""


class _Reader:
    """What one reader has had of one experiment."""

    def __init__(self, handle: Watched, settings: Settings) -> None:
        self._handle = handle
        self._settings = settings
        self._timeline: list[dict[str, Any]] = []
        self._had: Counter[str] = Counter()
        self._lines: dict[int, int] = {}
        self._segment = 0
        self._waited = 0

    async def look(self, status: ExperimentStatus) -> list[Event]:
        """Return what is new."""
        timeline = max(status.timeline, self._timeline, key=len)
        states = _states(timeline[len(self._timeline) :])
        segment = status.live.get("cursor", {}).get("segment", 0)
        told: list[Event] = []
        if status.final:
            told = await self._sealed(status)
        elif states or segment != self._segment:
            # The heartbeat counts the segments: between two of them nothing new can be read.
            try:
                told = await self._live(status, timeline)
            except _SealedMeanwhile:
                self._waited += 1
                if self._waited < _LOOKS:
                    return []  # a next look finds the end, and everything in its order
                told = []  # the folder was lost, not sealed: the states are worth more than it
            self._segment = segment
        self._timeline = timeline
        return _in_order([*states, *told])

    async def _live(
        self, status: ExperimentStatus, timeline: Iterable[Mapping[str, Any]]
    ) -> list[Event]:
        """Return what the attempts that have run so far told since the last look."""
        found: list[Event] = []
        for moment in timeline:
            if moment["state"] == State.RUNNING:
                try:
                    found += await self._attempt(status, moment)
                except ServerUnavailable:
                    return found  # its host is away: what is missing now is told later
        return found

    async def _attempt(self, status: ExperimentStatus, moment: Mapping[str, Any]) -> list[Event]:
        """Return the new events of one attempt."""
        epoch = int(moment["epoch"])
        after = self._lines.get(epoch, 0)
        if is_here(self._settings, status):
            place = Workplace.of(self._settings.runs, status.tenant, status.request_id, epoch)
            found, last = await asyncio.to_thread(_piece, place.folder, after)
            if not place.folder.is_dir():
                raise _SealedMeanwhile
        else:
            data, last = await self._from_afar(status, str(moment["backend"]), EVENTS, epoch, after)
            found = [json.loads(line) for line in data.splitlines()]
        self._lines[epoch] = last
        self._had.update(map(_key, found))
        return found

    async def _sealed(self, status: ExperimentStatus) -> list[Event]:
        """Return what the capsule has and was not given yet."""
        capsule = await asyncio.to_thread(reachable, status)
        if capsule is not None:
            found = await asyncio.to_thread(_from_capsule, capsule)
        elif not status.backend:
            return []
        else:
            try:
                data, _ = await self._from_afar(status, status.backend, SEALED_EVENTS)
            except ServerUnavailable as exc:
                return [_missing(status, str(exc))]
            found = sealed_events(data) if data else []
        new: list[Event] = []
        for event in found:
            key = _key(event)
            if self._had[key]:
                self._had[key] -= 1
            else:
                new.append(event)
        return new

    async def _from_afar(
        self,
        status: ExperimentStatus,
        backend: str,
        stream: str,
        epoch: int = 0,
        offset: int = 0,
    ) -> tuple[bytes, int]:
        """Read a stream to its present end through the worker of a backend."""
        data, tenant, request_id = b"", status.tenant, status.request_id
        while True:
            asked = ReadInput(tenant, request_id, epoch, stream, offset, wait=False)
            answer = await self._handle.read(backend, asked)
            if stream == EVENTS and not answer.found:
                raise _SealedMeanwhile
            data += base64.b64decode(answer.data)
            offset = answer.next_offset
            if not answer.data:
                return (data, offset)


def _states(timeline: Iterable[Mapping[str, Any]]) -> list[Event]:
    return [{"event": STATE, **moment} for moment in timeline]


def _piece(folder: Path, after: int) -> tuple[list[Event], int]:
    lines = [*live_events(folder, after)]
    return ([event for _, event in lines], lines[-1][0] if lines else after)


def _from_capsule(capsule: Capsule) -> list[Event]:
    # Capsules of version 0.1.0 have no tables yet.
    has = any(entry.path == SEALED_EVENTS for entry in capsule.manifest.files)
    return sealed_events(capsule.read(SEALED_EVENTS)) if has else []


def _missing(status: ExperimentStatus, problem: str) -> Event:
    detail = {"missing": "the payload's events", "backend": status.backend, "problem": problem}
    return {"event": "missing", "at": now(), "epoch": status.epoch, "detail": detail}


def _key(event: Event) -> str:
    return json.dumps(event, sort_keys=True)


def _in_order(events: list[Event]) -> list[Event]:
    # The sort is stable: of one millisecond the state comes first, as in the capsule.
    return sorted(events, key=lambda event: event["at"])
