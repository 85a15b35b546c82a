"""The way into a sandbox: its first process is asked to run a command beside the payload.

That process is inside already, with the payload's namespaces, limits and system call filter,
so what it starts is as confined as the payload. The launcher hands it the ends of pipes and
hears how each command ended; what a command writes never passes through the first process.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_LARGEST = 4096


class Door:
    """The launcher's end of the socket that leads to a sandbox's first process."""

    def __init__(self) -> None:
        self._own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._own.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self.target = other.detach()
        self._numbers = count(1)
        self._waiting: dict[int, Callable[[int], None]] = {}

    def close_target(self) -> None:
        """Leave the other end to the child."""
        os.close(self.target)

    def close(self) -> None:
        """Close the launcher's end; whatever still ran was killed with the sandbox."""
        if self._own.fileno() < 0:
            return
        asyncio.get_running_loop().remove_reader(self._own)
        self._own.close()
        for ended in self._waiting.values():
            ended(int(signal.SIGKILL))
        self._waiting.clear()

    def run(self, plan: dict[str, Any], fds: Sequence[int], ended: Callable[[int], None]) -> int:
        """Ask for a command.

        Args:
            plan: ``argv`` and ``env``; too large for a message, so it goes as a file.
            fds: Where it writes: standard output, standard error, and why it did not start.
            ended: Called with its wait status.

        Returns:
            The number by which to `kill` it.

        Raises:
            OSError: the sandbox is gone, or takes nothing more at the moment.
        """
        number = next(self._numbers)
        if not self._waiting:
            asyncio.get_running_loop().add_reader(self._own, self._listen)
        file = os.memfd_create("plan")
        try:
            os.write(file, json.dumps(plan).encode())
            os.lseek(file, 0, os.SEEK_SET)
            asked = json.dumps({"run": number}).encode()
            socket.send_fds(self._own, [asked], [file, *fds])
        finally:
            os.close(file)
        self._waiting[number] = ended
        return number

    def kill(self, number: int, sent: int) -> None:
        """Signal a command and what it has started; one that has ended is left alone."""
        with suppress(OSError):
            self._own.send(json.dumps({"kill": number, "signal": sent}).encode())

    def _listen(self) -> None:
        try:
            message = self._own.recv(_LARGEST)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if not message:
            self.close()
            return
        told = json.loads(message)
        if ended := self._waiting.pop(int(told["ended"]), None):
            ended(int(told["status"]))
