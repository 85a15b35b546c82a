"""Building one environment: under a lock, with the marker written last.

An environment cannot be moved, so it is built where it stays, and only the marker makes it
whole: a folder without one is what a killed worker left, and is built again. The installer
inherits the lock and ends with its worker, so nobody builds beside it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Protocol

from temporal_fabric import durable
from temporal_fabric.environments.commands import Commands
from temporal_fabric.errors import EnvironmentFailed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

MARKER = "environment.txt"
_LOOK_S = 0.2


class Source(Protocol):
    """What an environment is made of."""

    digest: str
    """Names the environment: 64 hexadecimal digits of everything that makes it differ."""

    def whole(self, folder: Path) -> bool:
        """Say whether a finished folder still works on this host as it is now."""
        ...

    async def make(self, folder: Path, commands: Commands) -> list[str]:
        """Make the environment at its final place, which is empty or not there.

        Returns:
            Lines that say what is in it; the first begin with ``#``.

        Raises:
            EnvironmentFailed: it cannot be made.
        """
        ...


async def build(
    source: Source, folder: Path, log: Callable[[str], None], say: Callable[[str], None]
) -> bool:
    """Make sure that the environment stands in ``folder``.

    Args:
        source: What it is made of.
        folder: Where it will lie; its parent is made.
        log: Takes each line of the installer.
        say: Takes what is being done, for people who wait.

    Returns:
        Whether it was built now; False where it stood already.

    Raises:
        EnvironmentFailed: the installer failed; the message says at what, and `tail` has the
            end of what it wrote.
    """
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    async with _exclusive(folder, say) as lock:
        if (folder / MARKER).is_file() and source.whole(folder):
            await asyncio.to_thread(os.utime, folder / MARKER)  # when it was last used
            return False
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        try:
            inside = await source.make(folder, Commands(lock, log, say))
            await asyncio.to_thread(_mark, folder, source.digest, inside)
        except EnvironmentFailed:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            raise
    return True


def try_lock(folder: Path) -> int | None:
    """Take the lock of an environment; None where another process has it.

    Returns:
        A descriptor; closing it gives the lock back.
    """
    path = folder.with_name(f"{folder.name}.lock")
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), path.stat()):
                return fd
        os.close(fd)  # a clean-up removed the file meanwhile; the next one is the lock


@asynccontextmanager
async def _exclusive(folder: Path, say: Callable[[str], None]) -> AsyncGenerator[int]:
    while (fd := try_lock(folder)) is None:
        say("waiting for the same environment, which is being built")
        await asyncio.sleep(_LOOK_S)
    try:
        yield fd
    finally:
        os.close(fd)


def _mark(folder: Path, digest: str, inside: list[str]) -> None:
    os.sync()  # the marker must never be on disk before what it vouches for
    text = "".join(f"{line}\n" for line in [f"# environment {digest}", *inside])
    durable.replace(folder / MARKER, text.encode())
