"""The launcher's log file: standard error, bounded in size."""

from __future__ import annotations

import os
import time

_PATH = "launcher.log"
_LARGEST = 1 << 20


def redirect() -> None:
    """Let the standard streams of this process end in the log of the current folder."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)
    _open()


def log(sentence: str) -> None:
    """Append a line; a full disk does not matter here."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    try:
        if os.fstat(2).st_size > _LARGEST:
            os.replace(_PATH, f"{_PATH}.1")  # noqa: PTH105 - no path object for a literal name
            _open()
        os.write(2, f"{now} {os.getpid()} {sentence}\n".encode("utf-8", "replace"))
    except OSError:
        return


def _open() -> None:
    fd = os.open(_PATH, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.dup2(fd, 2)
    os.close(fd)
