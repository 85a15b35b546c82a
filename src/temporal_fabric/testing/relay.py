"""Forwarding shims on sockets, between a client and its server; here one for lines.

`temporal_fabric.testing.http_relay` is the one for HTTP.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_LATE_S = 1.0
_LONGEST_LINE = 2**24


class Relay(ABC):
    """Listens, and spoils what it was told to; a subclass knows the protocol.

    Args:
        path: Where clients find the relay.
        target: The server's socket.
        fault: A value of `temporal_fabric.testing.bench.Fault`.
        garble: Makes a meaningless answer of a true one, and of how many came before.
    """

    def __init__(
        self, path: Path, target: Path, fault: str, garble: Callable[[bytes, int], bytes]
    ) -> None:
        self._path, self._target = path, target
        self._fault, self._garble, self._garbled = fault, garble, 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to listen."""
        self._server = await self._listen()

    async def aclose(self) -> None:
        """Stop listening and end every connection."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_unix_server(self._serve, str(self._path), limit=_LONGEST_LINE)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(str(self._target), limit=_LONGEST_LINE)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            with suppress(OSError, EOFError, asyncio.CancelledError):
                if self._fault == "away":
                    await asyncio.Event().wait()
                await self._forward(reader, writer)
        finally:
            writer.close()

    @abstractmethod
    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward what one connection brings, until it ends."""

    async def _spoiled(self, answer: bytes) -> bytes | None:
        """Return what the client gets for an answer that meets the fault, or None for nothing."""
        if self._fault == "lost_reply":
            return None
        if self._fault == "late_reply":
            await asyncio.sleep(_LATE_S)
        if self._fault == "garbage":
            answer = self._garble(answer, self._garbled)
            self._garbled += 1
        return answer


class LineRelay(Relay):
    """Forwards lines between clients and a server.

    Args:
        path: Where clients find the relay.
        target: The server's socket.
        match: What stands in the requests that meet the fault.
        fault: A value of `temporal_fabric.testing.bench.Fault`.
        garble: Makes a meaningless answer of a true one, and of how many came before.
    """

    def __init__(
        self,
        path: Path,
        target: Path,
        match: bytes,
        fault: str,
        garble: Callable[[bytes, int], bytes],
    ) -> None:
        super().__init__(path, target, fault, garble)
        self._match = match

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = await self._connect()
        spoiled = asyncio.Event()
        up = asyncio.create_task(self._up(reader, upstream[1], spoiled))
        down = asyncio.create_task(self._down(upstream[0], writer, spoiled))
        try:
            await asyncio.wait([up, down], return_when=asyncio.FIRST_COMPLETED)
        finally:
            upstream[1].close()
            up.cancel()
            down.cancel()
            await asyncio.gather(up, down, return_exceptions=True)

    async def _up(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, spoiled: asyncio.Event
    ) -> None:
        while line := await reader.readline():
            if self._match in line:
                if self._fault == "lost_request":
                    return
                spoiled.set()
            writer.write(line)
            await writer.drain()

    async def _down(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, spoiled: asyncio.Event
    ) -> None:
        while line := await reader.readline():
            if spoiled.is_set():
                spoiled.clear()
                changed = await self._spoiled(line)
                if changed is None:
                    return
                line = changed
            writer.write(line)
            await writer.drain()
