"""A forwarding shim for HTTP: one request and one answer for each connection."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from temporal_fabric.testing.relay import Relay

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_PIECE = 65536
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)
_CONNECTION = re.compile(rb"\r\nconnection:[^\r]*", re.IGNORECASE)


class HttpRelay(Relay):
    """Forwards requests on Unix sockets.

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
        super().__init__(path, target, fault, garble)
        self._match = re.compile(match.encode())

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
                answer = await self._spoiled(await server.read())
                writer.write(answer or b"")
                await writer.drain()
                return
            while piece := await server.read(_PIECE):
                writer.write(piece)
                await writer.drain()
        finally:
            client.close()


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
