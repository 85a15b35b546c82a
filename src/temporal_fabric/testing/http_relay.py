"""A forwarding shim for HTTP: one request and one answer for each connection.

`temporal_fabric.testing.relay` is the same for protocols of lines.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_LATE_S = 1.0
_PIECE = 65536
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)
_CONNECTION = re.compile(rb"\r\nconnection:[^\r]*", re.IGNORECASE)


class HttpRelay:
    """Forwards requests on Unix sockets, and spoils what it was told to.

    Args:
        path: Where clients find the relay.
        target: The server's socket.
        match: Finds the request lines that meet the fault.
        fault: A value of `temporal_fabric.testing.bench.Fault`.
        garble: Makes a meaningless answer of a true one, and of how many came before.
    """

    def __init__(
        self,
        path: Path,
        target: Path,
        match: str,
        fault: str,
        garble: Callable[[bytes, int], bytes],
    ) -> None:
        self._path, self._target = path, target
        self._match, self._fault, self._garble = re.compile(match.encode()), fault, garble
        self._garbled = 0
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
        return await asyncio.start_unix_server(self._serve, str(self._path))

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(str(self._target))

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

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        size = _LENGTH.search(head)
        body = await reader.readexactly(int(size[1])) if size else b""
        spoiled = self._match.search(head.partition(b"\r\n")[0]) is not None
        if spoiled and self._fault == "lost_request":
            return
        server, client = await self._connect()
        try:
            if _UPGRADE.search(head):
                await _join(head, reader, writer, server, client)
                return
            head = _CONNECTION.sub(b"", head)
            client.write(head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1) + body)
            if spoiled:
                await self._spoil(await server.read(), writer)
                return
            while piece := await server.read(_PIECE):
                writer.write(piece)
                await writer.drain()
        finally:
            client.close()

    async def _spoil(self, answer: bytes, writer: asyncio.StreamWriter) -> None:
        if self._fault == "lost_reply":
            return
        if self._fault == "late_reply":
            await asyncio.sleep(_LATE_S)
        if self._fault == "garbage":
            answer = self._garble(answer, self._garbled)
            self._garbled += 1
        writer.write(answer)
        await writer.drain()


async def _join(
    head: bytes,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    server: asyncio.StreamReader,
    client: asyncio.StreamWriter,
) -> None:
    """Forward what is no HTTP any more, in both directions."""
    client.write(head)
    pumps = [
        asyncio.create_task(_pump(source, sink))
        for source, sink in ((reader, client), (server, writer))
    ]
    try:
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while piece := await source.read(_PIECE):
        sink.write(piece)
        await sink.drain()
