"""Letting a run on a device stand still: no further command is sent, and the present one pauses.

A device with the feature PauseController lets the present command stand still where it is. Any
other one performs it to its end, and the run stands still before the next.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from temporal_fabric.errors import TransientBackendError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from temporal_fabric.adapters.lab_journal import Journal, Standing
    from temporal_fabric.adapters.sila_device import SilaDevice

ASKED, STANDS, GOES_ON = "pause", "paused", "resumed"
RECORDS = frozenset({ASKED, STANDS, GOES_ON})
"""What a journal says of it."""

_LOOK_S = 0.1
_PATIENCE_S = 5.0
"""How long one call waits for the end of the present command."""


@dataclass(slots=True)
class Pauses:
    """When one attempt has stood still."""

    wanted: bool = False
    """Somebody wants it to: no further command may be sent."""

    since: float | None = None
    """It stands still, since then, in Unix seconds."""

    past: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])

    def take(self, record: Mapping[str, Any]) -> None:
        """Follow one record of a journal."""
        if record["is"] == ASKED:
            self.wanted = True
        elif record["is"] == STANDS:
            self.since = self.since or record["at"]
        else:
            if self.since is not None:
                self.past.append((self.since, record["at"]))
            self.wanted, self.since = False, None

    def seconds(self, after: float = 0.0) -> float:
        """Return how long it has stood still, counted from a moment on."""
        spans = [*self.past, *([] if self.since is None else [(self.since, time.time())])]
        return sum(max(end - max(begin, after), 0.0) for begin, end in spans)


async def stand_still(journal: Journal, device: SilaDevice) -> None:
    """Return when a run that goes on stands still, which its journal then says.

    Raises:
        TransientBackendError: the device performs its present command to its end first, or does
            not answer.
    """
    if not (await _read(journal)).attempts[journal.epoch].pauses.wanted:
        await asyncio.to_thread(journal.append, ASKED)
    deadline = time.monotonic() + _PATIENCE_S
    while not await _stands(journal, device):
        if time.monotonic() >= deadline:
            text = f"{device.options.device} performs its present command to its end first"
            raise TransientBackendError(text)
        await asyncio.sleep(_LOOK_S)
    if (await _read(journal)).attempts[journal.epoch].pauses.since is None:
        await asyncio.to_thread(journal.append, STANDS)


async def _stands(journal: Journal, device: SilaDevice) -> bool:
    standing = await _read(journal)
    if standing.attempts[journal.epoch].pauses.since is not None:
        return True
    if standing.open is not None:
        return bool(standing.open.uuid) and await device.pause(standing.open.uuid)
    with journal.held() as mine:
        # Whoever held it before may have been about to send a command.
        return mine and journal.read().open is None


async def go_on(journal: Journal, device: SilaDevice) -> None:
    """Let a run go on that stands still, or was to.

    Raises:
        TransientBackendError: the device does not answer.
    """
    standing = await _read(journal)
    if not standing.attempts[journal.epoch].pauses.wanted:
        return
    if standing.open is not None and standing.open.uuid:
        await device.resume(standing.open.uuid)
    await asyncio.to_thread(journal.append, GOES_ON)


async def _read(journal: Journal) -> Standing:
    return await asyncio.to_thread(journal.read)
