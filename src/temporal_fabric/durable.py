"""Writing files so that a power cut leaves the old content or the new, never half.

The order is always: write a temporary file, fsync it, rename or link it, fsync the folder.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from temporal_fabric.beneath import Measured, chunks, opened_below

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from io import FileIO
    from pathlib import Path

_CHUNK = 1 << 20


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folder(path: Path) -> None:
    """Create a folder and its missing parents, durably."""
    missing: list[Path] = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def replace(path: Path, data: bytes) -> None:
    """Write ``path`` whole, replacing what was there."""
    temporary = _write_beside(path, data)
    temporary.replace(path)
    sync_folder(path.parent)


def create(path: Path, data: bytes) -> bool:
    """Create ``path`` with ``data``; return False, changing nothing, where it exists."""
    if path.exists():
        return False
    temporary = _write_beside(path, data)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    sync_folder(path.parent)
    return True


def copy_hashed(source: Path, target: Path, sha256: str = "") -> tuple[int, str]:
    """Copy a regular file durably; return its size in bytes and its sha256 in hex.

    The source is opened without following a link, so a link planted by a payload is refused.

    Raises:
        OSError: the source is a link, is gone, or the disk is full.
        StoreError: the content has another digest than ``sha256``; nothing is copied.
    """
    with opened_below(source.parent, source.name) as fd:
        return write_hashed(chunks(fd), target, sha256)


def write_hashed(content: Iterable[bytes], target: Path, sha256: str = "") -> tuple[int, str]:
    """Write content durably; return its size in bytes and its sha256 in hex.

    Raises:
        OSError: the disk is full.
        StoreError: the content has another digest than ``sha256``; nothing is written.
    """
    measured, temporary = Measured(target.name, sha256), _beside(target)
    try:
        with temporary.open("xb") as writer:
            for chunk in measured.passing(content):
                writer.write(chunk)
            writer.flush()
            os.fsync(writer.fileno())
        temporary.replace(target)
        sync_folder(target.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return measured.found


def replace_hashing(path: Path, parts: Sequence[bytes | memoryview]) -> tuple[int, str]:
    """Write ``path`` whole from parts in memory, hashing them while the disk writes.

    Returns:
        Its size in bytes and its sha256 in hex.

    Raises:
        OSError: the disk is full or gone; what was there stays.
    """
    temporary = _beside(path)
    try:
        with temporary.open("xb", buffering=0) as file, ThreadPoolExecutor(1) as beside:
            hashed = beside.submit(_hash_parts, parts)
            for part in parts:
                _write_all(file, part)
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return hashed.result()


def _hash_parts(parts: Sequence[bytes | memoryview]) -> tuple[int, str]:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return sum(len(part) for part in parts), digest.hexdigest()


def _write_all(file: FileIO, part: bytes | memoryview) -> None:
    # A raw file may take less than it is given.
    rest = memoryview(part)
    while rest:
        rest = rest[file.write(rest) :]


def hash_file(path: Path) -> tuple[int, str]:
    """Return size in bytes and sha256 in hex of a regular file, links refused."""
    digest, size = hashlib.sha256(), 0
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with open(fd, "rb") as reader:  # noqa: PTH123 - a descriptor, not a path
        while chunk := reader.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return (size, digest.hexdigest())


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")


def _write_beside(path: Path, data: bytes) -> Path:
    temporary = _beside(path)
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        # After a failed fsync the pages may be marked clean: the file is abandoned, not retried.
        temporary.unlink(missing_ok=True)
        raise
    return temporary
