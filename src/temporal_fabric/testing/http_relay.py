"""A forwarding shim for HTTP: one request and one answer for each connection."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from temporal_fabric.testing.relay import Relay

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

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
        head, blank, body = (await read_message(reader)).partition(b"\r\n\r\n")
        head += blank
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


class PortRelay(HttpRelay):
    """The same between a port of this host and a server of TCP.

    Args:
        host: The server's.
        port: The server's.
        match: Finds the request lines that meet the fault.
        fault: A value of `temporal_fabric.testing.bench.Fault`.
        garble: Makes a meaningless answer of a true one, and of how many came before.
        trust: For a server that speaks TLS.
        shown: For clients that do.
    """

    def __init__(
        self,
        host: str,
        port: int,
        match: str,
        fault: str,
        garble: Callable[[bytes, int], bytes],
        *,
        trust: ssl.SSLContext | None = None,
        shown: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(Path(), Path(), match, fault, garble)
        self._host, self._server_port, self._trust, self._shown = host, port, trust, shown

    @property
    def port(self) -> int:
        """Where clients find the relay, on 127.0.0.1."""
        if self._server is None:
            raise RuntimeError("the relay has not been started")
        return int(self._server.sockets[0].getsockname()[1])

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._shown)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self._host, self._server_port, ssl=self._trust)


async def read_message(reader: asyncio.StreamReader) -> bytes:
    """Return a request or an answer whose head tells its length."""
    head = await reader.readuntil(b"\r\n\r\n")
    size = _LENGTH.search(head)
    return head + (await reader.readexactly(int(size[1])) if size else b"")


def http_answer(status: int, body: object) -> bytes:
    """Return a whole answer of HTTP with a JSON body."""
    content = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} Told\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


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
