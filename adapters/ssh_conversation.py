"""A program on another host that reads lines and answers each; it stays there for the next one.

So a question costs no new session and no start of a program. Blocking; one caller at a time.
Closing a conversation lets its program read the end of its input, and does not end it.
"""

from __future__ import annotations

import contextlib
import select
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from paramiko.ssh_exception import SSHException

if TYPE_CHECKING:
    import paramiko

KEPT_S = 20.0
"""A program that was asked nothing for so long is let go."""

_CHUNK = 1 << 16
_LARGEST = 1 << 25
"""No answer is larger."""

_LOOK_MS = 500
_AGAIN_S = 0.05


@dataclass(frozen=True, slots=True)
class Program:
    """A program of the host."""

    command: str
    opening: bytes
    """What it reads before the first line, and does not answer."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a program has said."""

    out: bytes
    err: bytes
    code: int | None
    """Its exit status, or None where it waits for the next line."""


def session(transport: paramiko.Transport, limit_s: float) -> paramiko.Channel:
    """Open a session; wait where sessions that were closed are not quite gone on the host.

    Raises:
        SSHException: the host gives none.
    """
    deadline = time.monotonic() + limit_s
    while True:
        try:
            return transport.open_session(timeout=limit_s)
        except SSHException:  # of whatever kind: callers get one another's here
            if time.monotonic() > deadline or not transport.is_active():
                raise
            time.sleep(_AGAIN_S)


class Conversation:
    """One run of a program.

    Args:
        transport: The connection.
        program: What is run.
        limit_s: How long the host may take to give a session.

    Raises:
        SSHException: the host gives no session.
    """

    def __init__(self, transport: paramiko.Transport, program: Program, limit_s: float) -> None:
        self._transport, self._opening = transport, program.opening
        self._channel = session(transport, limit_s)
        self._used = time.monotonic()
        try:
            self._channel.settimeout(limit_s)
            self._channel.exec_command(program.command)
        except BaseException:
            self.close()
            raise

    @property
    def usable(self) -> bool:
        """Whether it seems to wait for a line, and has not waited for long."""
        channel, waited = self._channel, time.monotonic() - self._used
        over = channel.closed or channel.eof_received or channel.exit_status_ready()
        return waited < KEPT_S and not over and self._transport.is_active()

    def ask(self, line: bytes, end: bytes, limit_s: float) -> Said:
        """Send a line and return what is said to it, or before the program's own end.

        Args:
            line: With its end.
            end: How a whole answer ends.
            limit_s: For the answer.

        Raises:
            SSHException: nobody knows what became of it.
            OSError: the same.
        """
        self._channel.settimeout(limit_s)
        self._channel.sendall(self._opening + line)
        self._opening = b""
        said = self._read(end, limit_s)
        self._used = time.monotonic()
        return said

    def close(self) -> None:
        """Let it go."""
        with contextlib.suppress(SSHException, EOFError, OSError):
            self._channel.close()

    def _read(self, end: bytes, limit_s: float) -> Said:
        """Read both streams: one left unread would stop the other."""
        channel, out, err = self._channel, bytearray(), bytearray()
        deadline = time.monotonic() + limit_s
        poller = select.poll()
        poller.register(channel.fileno(), select.POLLIN)
        while not self._ended():
            self._take(out, err)
            if out.endswith(end):
                return Said(bytes(out), bytes(err), None)
            if len(out) + len(err) > _LARGEST:
                raise SSHException(f"an answer of more than {_LARGEST} bytes")
            if time.monotonic() > deadline:
                raise TimeoutError(f"no answer in {limit_s:g} s")
            lost = not self._transport.is_active() or channel.closed
            # A session that ends closes its channel, after it has told its status.
            if lost and not self._ended():
                raise SSHException("the connection was lost")
            poller.poll(_LOOK_MS)
            if channel.eof_received:
                time.sleep(0.005)  # only the status is missing, and the poller knows nothing of it
        self._take(out, err)
        code = channel.recv_exit_status()
        if code == -1:
            # Killed by a signal or lost: which of them, nobody can tell.
            raise SSHException("the command ended without a status")
        return Said(bytes(out), bytes(err), code)

    def _ended(self) -> bool:
        return self._channel.exit_status_ready() and bool(self._channel.eof_received)

    def _take(self, out: bytearray, err: bytearray) -> None:
        while self._channel.recv_ready():
            out += self._channel.recv(_CHUNK)
        while self._channel.recv_stderr_ready():
            err += self._channel.recv_stderr(_CHUNK)
