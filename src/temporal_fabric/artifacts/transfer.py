"""One transfer in a thread of its own: its limits, its progress, and how it is stopped."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from temporal_fabric.errors import ArtifactFailed
from temporal_fabric.failpoints import FailPoint, reach

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

P = ParamSpec("P")
T = TypeVar("T")


class TransferStopped(Exception):
    """The activity went away; its thread must not write any further."""


class Transfer:
    """The limits of all transfers of one attempt together.

    Args:
        max_bytes: How much may be moved.
        max_seconds: How long it may take.
        say: Told what is being done, for the heartbeat.
    """

    def __init__(self, max_bytes: int, max_seconds: float, say: Callable[[str], None]) -> None:
        self._left = self._max_bytes = max_bytes
        self._until = time.monotonic() + max_seconds
        self._max_seconds = max_seconds
        self._say = say
        self._stopped = threading.Event()
        self._what = ""

    def begin(self, what: str) -> None:
        """Name what is moved now."""
        self._what = what
        self._say(what)

    def expect(self, size: int) -> None:
        """Refuse at once what is announced to be too large."""
        if size > self._left:
            raise ArtifactFailed(f"{self._what}: larger than artifacts.max_bytes={self._max_bytes}")

    def counted(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Pass chunks on while the limits last.

        Raises:
            ArtifactFailed: a limit is passed.
            TransferStopped: nobody waits for it any more.
        """
        moved = 0
        for chunk in chunks:
            if self._stopped.is_set():
                raise TransferStopped(self._what)
            if time.monotonic() > self._until:
                limit = f"artifacts.max_seconds={self._max_seconds}"
                raise ArtifactFailed(f"{self._what}: takes longer than {limit}")
            self.expect(len(chunk))
            self._left -= len(chunk)
            moved += len(chunk)
            self._say(f"{self._what}: {moved} bytes")
            yield chunk
            reach(FailPoint.STAGING_HALF)

    async def in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking function; once this is cancelled, it stops at its next chunk."""
        try:
            return await asyncio.to_thread(function, *args, **kwargs)
        except asyncio.CancelledError:
            self._stopped.set()
            raise
