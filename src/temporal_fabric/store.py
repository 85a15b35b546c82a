"""The store: where request records and capsules live for good, behind one URI.

Keys are relative paths with ``/``. Two operations carry all guarantees: `Store.create` is
exclusive, so two writers can never both own a name, and `Store.put_file` is whole or absent.
"""

from __future__ import annotations

import asyncio
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from temporal_fabric import durable
from temporal_fabric.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Store(Protocol):
    """What every store keeps. All calls are idempotent and safe to repeat after any error."""

    root: str
    """The URI without a trailing slash; an object's URI is ``root/key``."""

    async def create(self, key: str, data: bytes) -> bool:
        """Create an object exclusively and durably; False, changing nothing, if it exists.

        Raises:
            StoreError: the store could not be reached or is full.
        """
        ...

    async def read(self, key: str) -> bytes | None:
        """Return an object's content, or None where there is none.

        Raises:
            StoreError: the store could not be reached.
        """
        ...

    async def names(self, prefix: str) -> list[str]:
        """Return the sorted names directly below ``prefix``, unfinished ones left out.

        Raises:
            StoreError: the store could not be reached.
        """
        ...

    async def replace(self, key: str, data: bytes) -> None:
        """Write an object whole, replacing an older one.

        Raises:
            StoreError: the store could not be reached or is full.
        """
        ...

    async def put_file(self, key: str, source: Path) -> tuple[int, str]:
        """Copy a local regular file into the store; return size and sha256 of what was stored.

        Raises:
            StoreError: the source is a link or gone, or the store is full.
        """
        ...


class FileStore:
    """A store in a folder of a POSIX file system."""

    def __init__(self, root: Path) -> None:
        self.folder = root
        self.root = root.as_uri()

    async def create(self, key: str, data: bytes) -> bool:
        """See `Store.create`."""
        return await asyncio.to_thread(
            _ordered, self._path(key), lambda path: durable.create(path, data)
        )

    async def read(self, key: str) -> bytes | None:
        """See `Store.read`."""
        try:
            return await asyncio.to_thread(self._path(key).read_bytes)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise StoreError(f"cannot read from the store [key={key}]: {exc}") from exc

    async def names(self, prefix: str) -> list[str]:
        """See `Store.names`."""
        folder = self._path(prefix)
        try:
            entries = await asyncio.to_thread(lambda: [entry.name for entry in folder.iterdir()])
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as exc:
            raise StoreError(f"cannot list the store [prefix={prefix}]: {exc}") from exc
        return sorted(name for name in entries if not name.startswith("."))

    async def replace(self, key: str, data: bytes) -> None:
        """See `Store.replace`."""
        await asyncio.to_thread(_ordered, self._path(key), lambda path: durable.replace(path, data))

    async def put_file(self, key: str, source: Path) -> tuple[int, str]:
        """See `Store.put_file`."""
        return await asyncio.to_thread(
            _ordered, self._path(key), lambda path: durable.copy_hashed(source, path)
        )

    def _path(self, key: str) -> Path:
        parts = PurePosixPath(key).parts
        if key.startswith("/") or ".." in parts:
            raise StoreError(f"a store key is a relative path without '..' [key={key}]")
        return self.folder.joinpath(*parts)


def _ordered(path: Path, write: Callable[[Path], T]) -> T:
    # The folder is made in the same thread as the write: one hop, one order of fsyncs.
    try:
        durable.make_folder(path.parent)
        return write(path)
    except OSError as exc:
        raise StoreError(
            f"cannot write to the store [path={path}]: {exc}; free space or mend its permissions"
        ) from exc


def open_store(uri: str) -> Store:
    """Return the store behind a URI.

    Raises:
        StoreError: the scheme is not supported.
    """
    parts = urlsplit(uri)
    if parts.scheme != "file" or parts.netloc not in {"", "localhost"}:
        raise StoreError(
            f"unsupported store [uri={uri}]: use file:///absolute/path for the setting 'store'"
        )
    return FileStore(Path(unquote(parts.path)))


def local_path(uri: str) -> Path | None:
    """Return the folder or file behind a ``file://`` URI, or None for another scheme."""
    parts = urlsplit(uri)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None
