"""Let a client on another host read what a payload writes: a standalone activity.

It answers as soon as there is something new, at the latest after twenty seconds. Logs and the
capsule's table of events are read by byte; events of a running attempt by the number of the
payload's line, one JSON object a line.
"""

from __future__ import annotations

import asyncio
import base64
import json
from functools import partial
from typing import TYPE_CHECKING

from temporalio import activity
from temporalio.exceptions import ApplicationError

from temporal_fabric import names
from temporal_fabric.activities.heartbeat import beating
from temporal_fabric.holes import read_on
from temporal_fabric.messages import EVENTS, SEALED_EVENTS, ReadAnswer, ReadInput
from temporal_fabric.recorder.told import live_events
from temporal_fabric.workplace import Workplace

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from temporal_fabric.activities.desk import Desk

_LARGEST = 256 * 1024
_PATIENCE_S = 20.0
_POLL_S = 0.2
_STREAMS = ("stdout", "stderr", EVENTS, SEALED_EVENTS)


class Read:
    """The ``read`` activity of one worker."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @activity.defn(name=names.ACTIVITY_READ)
    async def read(self, asked: ReadInput) -> ReadAnswer:
        """Return the next piece of a log or of the events, some 256 KiB.

        Raises:
            ApplicationError: non-retryable, the stream has another name.
        """
        if asked.stream not in _STREAMS:
            text = f"no such stream: {asked.stream!r}; there are {', '.join(_STREAMS)}"
            raise ApplicationError(text, type="E_RANGE", non_retryable=True)
        runs = self._desk.settings.runs
        folder = Workplace.of(runs, asked.tenant, asked.request_id, asked.epoch).folder
        patience = _PATIENCE_S if asked.wait else 0.0
        async with beating():
            if asked.stream == SEALED_EVENTS:
                return await self._sealed(asked, SEALED_EVENTS)
            if asked.stream == EVENTS:
                return await _next_piece(partial(_events, folder, asked.offset), patience)
            log = f"{asked.stream}.log"
            answer = await _next_piece(partial(_piece, folder / log, asked.offset), patience)
            if answer.found:
                return answer
            return await self._sealed(asked, f"logs/{asked.epoch}/{log}")

    async def _sealed(self, asked: ReadInput, name: str) -> ReadAnswer:
        """Read from the capsule, which a client may not be able to reach."""
        record = self._desk.record(asked.tenant, asked.request_id)
        last = await record.last_outcome()
        root = f"{self._desk.store.root}/"
        capsule = "" if last is None else str(last[1].get("capsule", ""))
        key, store = f"{capsule.removeprefix(root)}/{name}", self._desk.store
        piece = await store.piece(key, asked.offset, _LARGEST) if capsule.startswith(root) else None
        return _nothing(asked.offset) if piece is None else _bytes(piece, asked.offset)


async def _next_piece(look: Callable[[], ReadAnswer], patience_s: float) -> ReadAnswer:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience_s
    while True:
        answer = await asyncio.to_thread(look)
        if answer.data or not answer.found or loop.time() >= deadline:
            return answer
        await asyncio.sleep(_POLL_S)


def _piece(path: Path, offset: int) -> ReadAnswer:
    try:
        with path.open("rb") as file:
            data, after = read_on(file.fileno(), offset, _LARGEST)
            return ReadAnswer(base64.b64encode(data).decode(), after)
    except FileNotFoundError:
        return _nothing(offset)


def _events(folder: Path, after: int) -> ReadAnswer:
    if not folder.is_dir():
        return _nothing(after)
    data, last = b"", after
    for line, event in live_events(folder, after):
        # The events of one line stay together: the next piece begins behind it.
        if line != last and len(data) >= _LARGEST:
            break
        data += json.dumps(event).encode() + b"\n"
        last = line
    return ReadAnswer(base64.b64encode(data).decode(), last)


def _bytes(data: bytes, offset: int) -> ReadAnswer:
    return ReadAnswer(base64.b64encode(data).decode(), offset + len(data))


def _nothing(offset: int) -> ReadAnswer:
    return ReadAnswer("", offset, found=False)
