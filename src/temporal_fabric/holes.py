"""Reading a file of which the middle was given back to the disk.

The launcher cuts a payload's output so where it outgrows its cap. A reader gets what is left,
and in place of each hole a line that says how much is missing.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

_CHUNK = 1 << 20
_PIECE = 1 << 16


class Part(NamedTuple):
    """A piece of a file without holes."""

    start: int
    """Where it begins: at the offset asked for, or behind the hole that is there."""

    data: bytes
    cut: bool = False
    """Whether a hole follows."""


def read_part(fd: int, offset: int, count: int) -> Part:
    """Return what stands at an offset, or behind the hole that is there.

    Args:
        fd: Descriptor of a regular file.
        offset: Where to begin.
        count: Bytes at most.
    """
    while True:
        size = os.fstat(fd).st_size
        if offset >= size:
            return Part(offset, b"")
        try:
            start = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError:
            return Part(size, b"")  # nothing but a hole up to the end
        end = os.lseek(fd, start, os.SEEK_HOLE)
        data = os.pread(fd, min(count, end - start), start)
        # What was cut while it was read came as zeros.
        if start + len(data) <= os.lseek(fd, start, os.SEEK_HOLE):
            return Part(start, data, cut=start + len(data) == end < size)


def read_on(fd: int, offset: int, count: int) -> tuple[bytes, int]:
    """Return the next piece for a person, holes told, and where to go on."""
    part = read_part(fd, offset, count)
    told = marker(part.start - offset) if part.start > offset else b""
    return (told + part.data, part.start + len(part.data))


async def pieces(path: Path, offset: int) -> AsyncIterator[bytes]:
    """Yield a file from an offset to its present end, holes told; nothing where there is none."""
    while True:
        piece, offset = await asyncio.to_thread(_piece, path, offset)
        if not piece:
            return
        yield piece


def _piece(path: Path, offset: int) -> tuple[bytes, int]:
    try:
        with path.open("rb") as file:
            return read_on(file.fileno(), offset, _PIECE)
    except FileNotFoundError:
        return (b"", offset)


def has_hole(path: Path) -> bool:
    """Return whether the middle of a file is missing."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        size = os.fstat(fd).st_size
        return size > 0 and os.lseek(fd, 0, os.SEEK_HOLE) < size
    except OSError:
        return False
    finally:
        os.close(fd)


def closed(path: Path) -> Path:
    """Return a file without holes that reads the same: the file itself, or a copy beside it."""
    if not has_hole(path):
        return path
    copy = path.with_name(f"{path.name}.closed")
    fd, offset = os.open(path, os.O_RDONLY | os.O_NOFOLLOW), 0
    try:
        with copy.open("wb") as file:
            while True:
                data, offset = read_on(fd, offset, _CHUNK)
                if not data:
                    return copy
                file.write(data)
    finally:
        os.close(fd)


def marker(missing: int) -> bytes:
    """Return the line that stands for a hole."""
    return b"\n[temporal-fabric: %d bytes left out]\n" % missing
