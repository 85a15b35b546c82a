"""One connection to a launcher: many requests at once, answers by request id."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any

from temporal_fabric.errors import (
    BackendUnknown,
    PermanentBackendError,
    TransientBackendError,
)
from temporal_fabric.launcher.protocol import MAX_LINE, PERMANENT, SOCKET, decode, encode
from temporal_fabric.shapes import is_table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_CREDENTIALS = struct.Struct("3i")


class LinkLostError(Exception):
    """The connection ended before the answer came; the request may or may not have arrived."""


class Link:
    """A connection that has answered ``hello``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._ids = count(1)
        self._pending: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.lost = False
        self.info: dict[str, Any] = {}
        self.pid = _peer(writer)
        # Opened while the connection lives, so the pid is the launcher's and stays so.
        self._pidfd = os.pidfd_open(self.pid)
        self._task = asyncio.get_running_loop().create_task(self._read())

    @classmethod
    async def open(cls, home: Path, timeout_s: float) -> Link:
        """Connect and say hello.

        Raises:
            LinkLostError: nobody listens, or whoever did has gone.
            BackendUnknown: a launcher is there and does not answer in time.
        """
        try:
            # The folder's descriptor, because a socket address holds 107 bytes only.
            folder = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                path = f"/proc/self/fd/{folder}/{SOCKET}"
                reader, writer = await asyncio.open_unix_connection(path, limit=MAX_LINE)
            finally:
                os.close(folder)
        except OSError as exc:
            raise LinkLostError(f"no launcher listens: {exc}") from exc
        try:
            link = cls(reader, writer)
        except OSError as exc:
            writer.close()
            raise LinkLostError(f"the launcher has just gone: {exc}") from exc
        try:
            link.info = await link.call("hello", {}, timeout_s)
        except BaseException:
            await link.aclose()
            raise
        return link

    async def call(self, op: str, args: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Send a request and wait for its answer.

        Raises:
            LinkLostError: the connection ended first.
            BackendUnknown: no answer in time.
            TransientBackendError: refused, for now.
            PermanentBackendError: refused for good.
        """
        if self.lost:
            raise LinkLostError("the connection has ended")
        number = next(self._ids)
        line = encode({"id": number, "op": op, "args": args})
        if len(line) > MAX_LINE:
            raise PermanentBackendError(f"the request is too large [bytes={len(line)}]")
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._pending[number] = answer
        try:
            async with asyncio.timeout(timeout_s):
                self._writer.write(line)
                return _result(await answer)
        except TimeoutError as exc:
            raise BackendUnknown(
                f"the launcher does not answer [op={op}, pid={self.pid}, timeout_s={timeout_s}]"
            ) from exc
        finally:
            del self._pending[number]

    async def gone(self, timeout_s: float) -> bool:
        """Wait until the launcher's process is dead; False if it takes longer."""
        loop = asyncio.get_running_loop()
        dead = asyncio.Event()
        loop.add_reader(self._pidfd, dead.set)
        try:
            async with asyncio.timeout(timeout_s):
                return await dead.wait()
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(self._pidfd)

    async def aclose(self) -> None:
        """Close the connection."""
        self._task.cancel()
        await asyncio.wait([self._task])
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    async def _read(self) -> None:
        try:
            with suppress(OSError, ValueError):
                while line := await self._reader.readline():
                    message = decode(line)
                    answer = self._pending.get(message.get("id", 0))
                    if answer is not None and not answer.done():
                        answer.set_result(message)
        finally:
            self.lost = True
            for answer in self._pending.values():
                if not answer.done():
                    answer.set_exception(LinkLostError("the connection ended"))


def _peer(writer: asyncio.StreamWriter) -> int:
    """Return the pid of the listener, as this process's namespace sees it."""
    sock: socket.socket = writer.get_extra_info("socket")
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(data)[0])


def _result(message: dict[str, Any]) -> dict[str, Any]:
    error, found = message.get("error"), message.get("ok")
    if error is None and is_table(found):
        return dict(found)
    if not is_table(error) or "kind" not in error:
        raise BackendUnknown(f"the launcher's answer means nothing: {message!r:.200}")
    kind = PermanentBackendError if error["kind"] == PERMANENT else TransientBackendError
    raise kind(str(error.get("message")))
