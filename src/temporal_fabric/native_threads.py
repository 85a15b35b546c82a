"""Leaving Python in order: not while a native thread is inside it.

Temporal's client answers from a native thread: it wakes the event loop and then leaves Python. A
short program can be at its end in between, and an interpreter that is finalised under such a
thread aborts the process with 134 or 139, after all its work was done.
"""

from __future__ import annotations

import sys
import threading
import time

__all__ = ["wait_until_outside"]

_PATIENCE_S = 2.0
_LOOK_S = 0.001


def wait_until_outside() -> None:
    """Wait until no native thread runs Python code, at most two seconds."""
    until = time.monotonic() + _PATIENCE_S
    while _inside() and time.monotonic() < until:
        time.sleep(_LOOK_S)  # also lets such a thread have the interpreter


def _inside() -> set[int]:
    # Nothing public knows of native threads.
    frames = sys._current_frames()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    return set(frames) - {thread.ident for thread in threading.enumerate()}
