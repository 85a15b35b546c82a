"""A worker whose disk fails: run as ``python -m temporal_fabric.testing.failing_disk ARGS...``.

A real disk that answers EIO to one fsync, at a chosen moment, is not to be had; so this is the
command line with ``os.fsync`` replaced. The folder named by ``FABRIC_FAILING_DISK`` holds the
orders: a file ``armed`` with a number lets that many more calls pass and the next one fail.
"""

from __future__ import annotations

import errno
import os
import runpy
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import HasFileno

FOLDER_ENV = "FABRIC_FAILING_DISK"


class FailingDisk:
    """Gives the orders.

    Args:
        folder: A folder of the test's own; made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def env(self) -> dict[str, str]:
        """Variables that make a worker started from this module take the orders."""
        return {FOLDER_ENV: str(self._folder)}

    @property
    def failed(self) -> bool:
        """Whether a call has failed since the last order."""
        return (self._folder / "failed").exists()

    def fail_after(self, calls: int) -> None:
        """Let some calls pass and the next one fail."""
        (self._folder / "failed").unlink(missing_ok=True)
        order = self._folder / "order"
        order.write_text(str(calls))
        order.rename(self._folder / "armed")


class _Fsync:
    def __init__(self, folder: Path) -> None:
        self._folder, self._real = folder, os.fsync
        self._left: int | None = None
        self._lock = threading.Lock()

    def __call__(self, fd: int | HasFileno) -> None:
        with self._lock:
            if self._left is None and (self._folder / "armed").exists():
                self._left = int((self._folder / "armed").read_text())
                (self._folder / "armed").unlink()
            fails, self._left = self._left == 0, self._left and self._left - 1
            if fails:
                self._left = None
        if fails:
            (self._folder / "failed").touch()
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._real(fd)


def main() -> None:
    """Replace ``os.fsync`` and run the command line."""
    os.fsync = _Fsync(Path(os.environ[FOLDER_ENV]))
    # By its name: this module lies below the command line, and only starts it.
    runpy.run_module("temporal_fabric.cli", run_name="__main__")


if __name__ == "__main__":
    main()
