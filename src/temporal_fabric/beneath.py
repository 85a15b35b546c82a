"""Reading files below a folder through descriptors: what was checked is what is read.

A folder is resolved once. Below it no link is followed, whoever swaps folders meanwhile.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from temporal_fabric.errors import ContentDiffers

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator
    from pathlib import Path

CHUNK = 1 << 20
"""Bytes moved at once."""

FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
"""Without blocking: to open a pipe would wait for its writer."""


@contextmanager
def opened_below(root: Path, relative: str) -> Generator[int]:
    """Yield a descriptor of a regular file below a folder, without following a link.

    Raises:
        OSError: a part of the path is a link, or it is gone.
    """
    *folders, name = relative.split("/")
    fd = os.open(root, FLAGS | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        for folder in folders:
            inner = os.open(folder, FLAGS | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            os.close(fd)
            fd = inner
        file = os.open(name, FLAGS | os.O_NOFOLLOW, dir_fd=fd)
    finally:
        os.close(fd)
    try:
        yield file
    finally:
        os.close(file)


def chunks(fd: int) -> Iterator[bytes]:
    """Yield what a descriptor holds from its beginning."""
    offset = 0
    while chunk := os.pread(fd, CHUNK, offset):
        offset += len(chunk)
        yield chunk


class Measured:
    """Content on its way, counted and hashed.

    Args:
        what: Names it in errors.
        sha256: Hex digest that it must have; empty takes any.
    """

    def __init__(self, what: str, sha256: str = "") -> None:
        self._what = what
        self._wanted = sha256
        self._digest = hashlib.sha256()
        self._size = 0

    @property
    def found(self) -> tuple[int, str]:
        """Size in bytes and sha256 in hex of what has passed."""
        return (self._size, self._digest.hexdigest())

    def passing(self, content: Iterable[bytes]) -> Iterator[bytes]:
        """Pass content on; its last chunk follows only if all of it is what was wanted.

        Raises:
            ContentDiffers: it is not.
        """
        held = b""
        for chunk in content:
            if held:
                yield held
            self._digest.update(chunk)
            self._size += len(chunk)
            held = chunk
        if self._wanted and self._digest.hexdigest() != self._wanted:
            raise ContentDiffers(
                f"content differs from what was expected [file={self._what}, "
                f"sha256={self._digest.hexdigest()}, expected={self._wanted}]: did it change?"
            )
        if held:
            yield held
