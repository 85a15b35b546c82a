"""Run a command that ends with the process that started it, however that ends.

A plain script of the standard library, started as ``python -I -S guard.py COMMAND...`` in a
session of its own, with a pipe as standard input that its starter keeps open. When the pipe is
closed, the guard and everything in its process group is killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading


def _watch() -> None:
    while os.read(0, 4096):
        continue
    os.killpg(0, signal.SIGKILL)


def main(command: list[str]) -> int:
    """Run the command and return its exit code, 128 and more for a signal."""
    threading.Thread(target=_watch, daemon=True).start()
    # Whatever the guard was given to hold, such as a lock, the command holds, too.
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, close_fds=False)
    code = child.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    # Without the interpreter's own end, which would wait for the reading thread's lock.
    os._exit(main(sys.argv[1:]))
