"""Following a file that a payload writes: whole lines only, from a byte offset on.

The payload owns the file and may replace it by a link, a pipe or something smaller; none of
these may stop or mislead the worker.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from temporal_fabric.holes import Part, read_part
from temporal_fabric.recorder.lines import MAX_LINE

if TYPE_CHECKING:
    from pathlib import Path

READ_BYTES = 4 * 1024 * 1024
"""At most so much of a source is read at once."""


class Piece(NamedTuple):
    """What one read of a source gave."""

    data: bytes
    """Whole lines, each with its end; at the end of the payload the last may lack it."""

    offset: int
    """Where the next read begins."""

    skipping: bool = False
    """Whether that is within a line that is too long."""

    too_long: int = 0
    """How many lines began here and are too long."""

    more: bool = False
    """Whether there is more to be read at once."""

    truncated: bool = False
    """Whether the file was shorter than what had been read of it."""


def read_piece(path: Path, offset: int, *, skipping: bool, ended: bool) -> Piece:
    """Read on from an offset.

    Args:
        path: The file; a missing one, a link and a pipe are empty.
        offset: Where to begin, in bytes.
        skipping: Whether the offset is within a line that is too long.
        ended: The payload has ended, so a last line without an end is a line.
    """
    size, part = _read(path, offset)
    if size < offset:
        return read_piece(path, 0, skipping=False, ended=ended)._replace(truncated=True)
    if part.start > offset:
        # Behind a hole, most probably within a line.
        return read_piece(path, part.start, skipping=True, ended=ended)
    data = part.data
    start = 0
    if skipping:
        start = data.find(b"\n") + 1
        if not start:
            return Piece(b"", offset + len(data), skipping=True, more=offset + len(data) < size)
    end = data.rfind(b"\n") + 1
    whole = offset + len(data) >= size
    if part.cut:
        return Piece(data[start:end], offset + len(data), skipping=True, more=True)
    if ended and whole:
        end = len(data)
    elif len(data) - end > MAX_LINE:
        at = offset + len(data)
        return Piece(data[start:end], at, skipping=True, too_long=1, more=not whole)
    return Piece(data[start:end], offset + max(start, end), more=not whole)


def _read(path: Path, offset: int) -> tuple[int, Part]:
    """Return a file's size, and at most `READ_BYTES` from an offset on."""
    try:
        # Without O_NONBLOCK a pipe in the file's place would hold the thread for ever.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return (offset, Part(offset, b""))
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            return (offset, Part(offset, b""))
        return (found.st_size, read_part(fd, offset, READ_BYTES))
    finally:
        os.close(fd)
