"""Files of this host, read through descriptors: what was checked is what is read.

A path is resolved once. Below it no link is followed, whoever swaps folders meanwhile.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from temporal_fabric.artifacts.transfer import CHUNK
from temporal_fabric.errors import ArtifactFailed

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
"""Without blocking: to open a pipe would wait for its writer."""


def read_local(path: Path, uri: str) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Yield the files at a path: one with an empty name, or those below a folder.

    Raises:
        ArtifactFailed: nothing is there, or it holds a link or a device.
    """
    try:
        fd = os.open(path, _FLAGS)
    except FileNotFoundError as exc:
        raise ArtifactFailed(f"input not found: {uri}") from exc
    except OSError as exc:
        raise ArtifactFailed(f"input cannot be read: {uri}: {exc.strerror}") from exc
    yield from _read(fd, "", uri)


@contextmanager
def opened_below(root: Path, relative: str) -> Generator[int]:
    """Yield a descriptor of a regular file below a folder, without following a link.

    Raises:
        OSError: a part of the path is a link, or it is gone.
    """
    *folders, name = relative.split("/")
    fd = os.open(root, _FLAGS | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        for folder in folders:
            inner = os.open(folder, _FLAGS | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            os.close(fd)
            fd = inner
        file = os.open(name, _FLAGS | os.O_NOFOLLOW, dir_fd=fd)
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


def _read(fd: int, name: str, uri: str) -> Iterator[tuple[str, Iterator[bytes]]]:
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISREG(mode):
            yield (name, chunks(fd))
        elif stat.S_ISDIR(mode):
            for entry in sorted(os.listdir(fd)):
                inner = f"{name}/{entry}" if name else entry
                yield from _read(_open_entry(fd, entry, inner, uri), inner, uri)
        else:
            raise ArtifactFailed(f"input is neither file nor folder: {uri} {name}".rstrip())
    finally:
        os.close(fd)


def _open_entry(folder: int, entry: str, name: str, uri: str) -> int:
    try:
        return os.open(entry, _FLAGS | os.O_NOFOLLOW, dir_fd=folder)
    except OSError as exc:
        raise ArtifactFailed(
            f"input holds what cannot be read, or a link: {uri}: {name}: {exc.strerror}"
        ) from exc
