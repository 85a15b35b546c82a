"""A terminal for tests: a program runs in it, and its screen is read as a person would.

Needs pyte, an emulator of terminals, which is no dependency of the package.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from typing import TYPE_CHECKING

import pyte

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_WAIT_S = 60.0
_PIECE = 65536


class Terminal:
    """Runs a program in a pseudo-terminal.

    Args:
        command: The program and its arguments.
        env: Its environment; ``TERM`` is added.
        columns: Width in characters.
        rows: Height in lines.
    """

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        *,
        columns: int = 100,
        rows: int = 30,
    ) -> None:
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process = subprocess.Popen(
            command,
            env={**env, "TERM": "xterm-256color"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            close_fds=True,
        )
        os.close(slave)

    @property
    def text(self) -> str:
        """The screen as it is now, without what was not written yet."""
        return "\n".join(line.rstrip() for line in self._screen.display)

    def until(self, *wanted: str) -> str:
        """Read until every wanted text is on the screen together; return the screen.

        Raises:
            TimeoutError: that does not happen within a minute.
        """
        deadline = time.monotonic() + _WAIT_S
        while not all(word in self.text for word in wanted):
            ended = self.process.poll() is not None
            if not self._read() and (ended or time.monotonic() > deadline):
                raise TimeoutError(f"never seen together: {wanted}\n{self.text}")
        return self.text

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self) -> int:
        """Read until the program ends; return its exit code."""
        deadline = time.monotonic() + _WAIT_S
        while self.process.poll() is None and time.monotonic() < deadline:
            self._read()
        while self._read():
            pass
        return self.process.wait(1)

    def close(self) -> None:
        """End the program where it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._master], [], [], 0.2)
        if not ready:
            return False
        try:
            data = os.read(self._master, _PIECE)
        except OSError:
            return False  # the other end is closed
        self._stream.feed(data)
        return bool(data)
