"""Capping what a payload's output takes on the disk, without its noticing.

The payload writes to its files directly. Of a file beyond its share the middle is given back
to the disk as a hole; beginning, end and the offsets of what is written later stay as they
are. Between two looks a payload can be ahead of its cap by what the disk takes in that time.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from temporal_fabric.launcher import syscalls
from temporal_fabric.launcher.journal import log

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from temporal_fabric.launcher.protocol import LaunchSpec

BLOCK = 64 * 1024
"""Holes begin and end here, so that no file system has to leave zeros at their edges."""

LEAST_BYTES = 4 * BLOCK

_FASTEST_S, _SLOWEST_S = 0.1, 0.4


class LogCap:
    """The output files of one attempt; each keeps half of what both may take.

    Args:
        spec: The attempt's launch, whose limits have `log_bytes`.
    """

    def __init__(self, spec: LaunchSpec) -> None:
        share = (spec.limits.log_bytes or 0) // 2
        # The smaller half at the beginning: the end is what people look for.
        self._head = max(share // 2 // BLOCK, 1) * BLOCK
        self._tail = max((share - self._head) // BLOCK, 1) * BLOCK
        self._cut = dict.fromkeys((spec.stdout, spec.stderr), self._head)
        """Up to where each file was cut."""

    @property
    def dropped(self) -> int:
        """How many bytes were given up so far."""
        return sum(end - self._head for end in self._cut.values())

    def over(self) -> bool:
        """Return whether a file takes more than its share."""
        return any(self._end(path) > end for path, end in self._cut.items())

    def trim(self) -> None:
        """Cut the files that take more than their share."""
        for path, done in self._cut.items():
            end = self._end(path)
            if end > done:
                self._punch(path, done, end)

    def _end(self, path: str) -> int:
        """Return up to where a file should be cut: in whole blocks, before its tail."""
        try:
            return (os.stat(path).st_size - self._tail) // BLOCK * BLOCK  # noqa: PTH116 - often
        except OSError:
            return 0

    def _punch(self, path: str, start: int, end: int) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            syscalls.punch_hole(fd, start, end - start)
        finally:
            os.close(fd)
        self._cut[path] = end


async def follow(cap: LogCap, pool: Executor, ended: Callable[[], bool]) -> None:
    """Hold an attempt's output to its cap until its main process has ended."""
    pause_s = _FASTEST_S
    while not ended():
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, _SLOWEST_S)
        if cap.over():
            pause_s = _FASTEST_S
            await _trim(cap, pool)


async def finish(cap: LogCap, pool: Executor) -> int:
    """Cut once more after the end; return how many bytes were given up in all."""
    await _trim(cap, pool)
    return cap.dropped


async def _trim(cap: LogCap, pool: Executor) -> None:
    # A disk that refuses is tried again at the next look.
    try:
        await asyncio.get_running_loop().run_in_executor(pool, cap.trim)
    except OSError as exc:
        log(f"output not cut: {exc}")


def why_not(folder: str) -> str:
    """Return why files in a folder cannot be capped, empty where they can."""
    try:
        fd = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        return f"no file can be made in {folder}: {exc.strerror}"
    try:
        os.write(fd, b"x" * 3 * BLOCK)
        syscalls.punch_hole(fd, BLOCK, BLOCK)
        cut = os.lseek(fd, 0, os.SEEK_HOLE) == BLOCK
    except OSError:
        cut = False
    finally:
        with suppress(OSError):
            os.close(fd)
    return "" if cut else f"the file system of {folder} takes no holes"
