"""A network between a worker and its server that a test can cut and mend."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class Cable:
    """Forwards connections to a server while it is whole.

    Args:
        target: The server, as host:port.
        here: Where it takes connections.
    """

    def __init__(self, target: str, here: str = "127.0.0.1") -> None:
        host, _, port = target.rpartition(":")
        self._here = here
        self._target = (host, int(port))
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.address = ""

    async def mend(self) -> None:
        """Take connections, at the same address as before."""
        port = int(self.address.rpartition(":")[2] or 0)
        self._server = await asyncio.start_server(self._serve, self._here, port)
        self.address = f"{self._here}:{self._server.sockets[0].getsockname()[1]}"

    async def cut(self) -> None:
        """End every connection, and refuse new ones."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with suppress(OSError, asyncio.CancelledError):
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            try:
                await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
            finally:
                far_writer.close()
                writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(65536):
        writer.write(piece)
        await writer.drain()
    writer.close()
