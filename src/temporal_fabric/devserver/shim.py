"""Become the server: runs between fork and the server, standard library only.

A plain script, started as ``python -I -S shim.py LOCK_FD PARENT_PID BINARY ARG...``. It
does in a fresh process what is unsafe between fork and exec of a threaded one.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PARENT_GONE = 70
_WIDTH = 20


def write_holder(lock: int) -> None:
    """Write the own pid into the lock file: one write of one width, so never half a pid."""
    os.pwrite(lock, f"{os.getpid():<{_WIDTH}}".encode(), 0)


def read_holder(lock: int) -> int | None:
    """Return the pid in the lock file, None before there is one."""
    text = os.pread(lock, _WIDTH, 0).decode("ascii", "replace").strip()
    return int(text) if text.isdigit() else None


def main(argv: list[str]) -> None:
    """Note the own pid in the lock file, tie the life to the parent's if asked, exec."""
    lock, parent, command = int(argv[0]), int(argv[1]), argv[2:]
    # The pid survives the exec: from here on the lock file names the server.
    write_holder(lock)
    if parent:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # The parent may have died before the kernel was told.
        if os.getppid() != parent:
            sys.exit(_PARENT_GONE)
    os.execv(command[0], command)  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    main(sys.argv[1:])
