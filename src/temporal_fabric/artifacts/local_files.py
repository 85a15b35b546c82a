"""Files of this host, read through descriptors: what was checked is what is read.

A path is resolved once. Below it no link is followed, whoever swaps folders meanwhile.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from temporal_fabric.beneath import FLAGS, chunks
from temporal_fabric.errors import ArtifactFailed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def read_local(path: Path, uri: str) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Yield the files at a path: one with an empty name, or those below a folder.

    Raises:
        ArtifactFailed: nothing is there, or it holds a link or a device.
    """
    try:
        fd = os.open(path, FLAGS)
    except FileNotFoundError as exc:
        raise ArtifactFailed(f"input not found: {uri}") from exc
    except OSError as exc:
        raise ArtifactFailed(f"input cannot be read: {uri}: {exc.strerror}") from exc
    yield from _read(fd, "", uri)


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
        return os.open(entry, FLAGS | os.O_NOFOLLOW, dir_fd=folder)
    except OSError as exc:
        raise ArtifactFailed(
            f"input holds what cannot be read, or a link: {uri}: {name}: {exc.strerror}"
        ) from exc
