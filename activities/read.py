"""Let a client on another host read what a payload writes: a standalone activity.

It answers as soon as there is something new, at the latest after twenty seconds.
"""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING

from temporalio import activity
from temporalio.exceptions import ApplicationError

from temporal_fabric import names
from temporal_fabric.activities.heartbeat import beating
from temporal_fabric.messages import ReadAnswer, ReadInput
from temporal_fabric.workplace import Workplace

if TYPE_CHECKING:
    from pathlib import Path

    from temporal_fabric.activities.desk import Desk

_LARGEST = 256 * 1024
_PATIENCE_S = 20.0
_POLL_S = 0.2
_STREAMS = ("stdout", "stderr")


class Read:
    """The ``read`` activity of one worker."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @activity.defn(name=names.ACTIVITY_READ)
    async def read(self, asked: ReadInput) -> ReadAnswer:
        """Return the next piece of a log, at most 256 KiB.

        Raises:
            ApplicationError: non-retryable, the stream has another name.
        """
        if asked.stream not in _STREAMS:
            text = f"no such stream: {asked.stream!r}; there are {', '.join(_STREAMS)}"
            raise ApplicationError(text, type="E_RANGE", non_retryable=True)
        runs = self._desk.settings.runs
        place = Workplace.of(runs, asked.tenant, asked.request_id, asked.epoch)
        path = place.folder / f"{asked.stream}.log"
        async with beating():
            patience = _PATIENCE_S if asked.wait else 0.0
            answer = await _next_piece(path, asked.offset, patience)
            return answer if answer.found else await self._sealed(asked)

    async def _sealed(self, asked: ReadInput) -> ReadAnswer:
        """Read from the capsule, which a client may not be able to reach."""
        record = self._desk.record(asked.tenant, asked.request_id)
        last = await record.last_outcome()
        root = f"{self._desk.store.root}/"
        capsule = "" if last is None else str(last[1].get("capsule", ""))
        key = f"{capsule.removeprefix(root)}/logs/{asked.epoch}/{asked.stream}.log"
        data = await self._desk.store.read(key) if capsule.startswith(root) else None
        if data is None:
            return ReadAnswer("", asked.offset, found=False)
        piece = data[asked.offset : asked.offset + _LARGEST]
        return ReadAnswer(base64.b64encode(piece).decode(), asked.offset + len(piece))


async def _next_piece(path: Path, offset: int, patience_s: float) -> ReadAnswer:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience_s
    while True:
        data = await asyncio.to_thread(_piece, path, offset)
        if data is None:
            return ReadAnswer("", offset, found=False)
        if data or loop.time() >= deadline:
            return ReadAnswer(base64.b64encode(data).decode(), offset + len(data))
        await asyncio.sleep(_POLL_S)


def _piece(path: Path, offset: int) -> bytes | None:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(_LARGEST)
    except FileNotFoundError:
        return None
