"""Files of an attempt as a tar stream: sent to where a backend runs it, and taken from there.

What comes back was written by a payload, so nothing in it is believed: no path leads out of the
folder, nothing follows a link, nothing is ever made but folders and regular files.
"""

from __future__ import annotations

import io
import os
import tarfile
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

_CHUNK = 1 << 20
_BLOCK, _RECORD = 512, 10240
_NOWHERE = "not-a-regular-file"
"""Target of the link that stands for what is neither file nor folder: it is refused later on."""


class TooLarge(Exception):
    """More came than is allowed."""


class Sent(NamedTuple):
    """A tar stream of known length."""

    size: int
    chunks: Iterator[bytes]


def pack(contents: Mapping[str, Path]) -> Sent:
    """Return a tar stream of files and folders; nothing is copied on the way.

    Args:
        contents: A file or folder for each path in the archive. They must not change meanwhile.

    Raises:
        OSError: a file cannot be read; also while the stream is read.
    """
    entries = [entry for name, path in contents.items() for entry in _entries(name, path)]
    heads = [(_head(info), path, info.size) for info, path in entries]
    size = sum(len(head) + _padded(length) for head, _, length in heads) + 2 * _BLOCK
    total = -(-size // _RECORD) * _RECORD
    return Sent(total, _stream(heads, total - size + 2 * _BLOCK))


def _entries(name: str, path: Path) -> Iterator[tuple[tarfile.TarInfo, Path]]:
    with tarfile.open(fileobj=io.BytesIO(), mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = archive.gettarinfo(path, arcname=name)
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    if info.islnk():
        info.type, info.linkname, info.size = tarfile.REGTYPE, "", path.lstat().st_size
    if info.isdir():
        # The user there is another one than here.
        info.mode |= 0o755
        yield (info, path)
        for child in sorted(path.iterdir()):
            yield from _entries(f"{name}/{child.name}", child)
    elif info.isreg() or info.issym():
        info.mode |= 0o644
        yield (info, path)


def _head(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _padded(length: int) -> int:
    return -(-length // _BLOCK) * _BLOCK


def _stream(heads: Iterable[tuple[bytes, Path, int]], end: int) -> Iterator[bytes]:
    for head, path, length in heads:
        yield head
        if length:
            yield from _content(path, length)
            yield bytes(_padded(length) - length)
    yield bytes(end)


def _content(path: Path, length: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        while length:
            chunk = file.read(min(_CHUNK, length))
            if not chunk:
                raise OSError(f"{path} became shorter while it was sent")
            length -= len(chunk)
            yield chunk


class _Received(io.RawIOBase):
    """Chunks as a file that can be read once."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._left:
            self._left = next(self._chunks, b"")
        part = self._left[: len(buffer)]
        buffer[: len(part)] = part
        self._left = self._left[len(part) :]
        return len(part)


def unpack(chunks: Iterator[bytes], target: Path, limits: Mapping[str, int] | None = None) -> None:
    """Write a tar stream below a folder that nobody else uses, and read it to its end.

    Args:
        chunks: The stream; an exception of it passes through.
        target: The folder, which exists and is empty.
        limits: What the files below a first path component may take together, in bytes.

    Raises:
        TooLarge: they take more.
        ValueError: this is no tar stream, or a path in it leads elsewhere.
    """
    left = dict(limits or {})
    others: list[Path] = []
    source = io.BufferedReader(_Received(chunks), _CHUNK)
    try:
        with tarfile.open(fileobj=source, mode="r|", bufsize=_CHUNK) as archive:
            for member in archive:
                path = target.joinpath(*_parts(member.name))
                if member.isdir():
                    path.mkdir(parents=True, exist_ok=True, mode=0o700)
                elif member.isreg():
                    _count(member, left)
                    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                    _write(archive, member, path)
                else:
                    others.append(path)
    except (tarfile.TarError, EOFError) as exc:
        raise ValueError(f"what came is no archive: {exc}") from exc
    for _ in chunks:
        pass  # whether all of it came is told at its end
    for path in others:
        if not os.path.lexists(path):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.symlink_to(_NOWHERE)


def _parts(name: str) -> list[str]:
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if ".." in parts or name.startswith("/") or "\0" in name:
        raise ValueError(f"a path leads elsewhere: {name[:80]!r}")
    return parts


def _count(member: tarfile.TarInfo, left: dict[str, int]) -> None:
    first = _parts(member.name)[0]
    if first in left:
        left[first] -= member.size
        if left[first] < 0:
            raise TooLarge(first)


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    content = archive.extractfile(member)
    if content is None:
        raise ValueError(f"no content: {member.name[:80]!r}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    mode = 0o700 if member.mode & 0o100 else 0o600
    with os.fdopen(os.open(path, flags, mode), "wb") as file:
        while chunk := content.read(_CHUNK):
            file.write(chunk)
