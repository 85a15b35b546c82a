"""A store for asynchronous code, and which kind of store a URI means."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from temporal_fabric.errors import StoreError
from temporal_fabric.store.folder import Folder

if TYPE_CHECKING:
    from temporal_fabric.store.objects import Objects


class Store:
    """`Objects` whose calls do not block: each runs in a thread of its own."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.root = objects.root

    async def create(self, key: str, data: bytes) -> bool:
        """See `Objects.create`."""
        return await asyncio.to_thread(self.objects.create, key, data)

    async def read(self, key: str) -> bytes | None:
        """See `Objects.read`."""
        return await asyncio.to_thread(self.objects.read, key)

    async def piece(self, key: str, start: int, length: int) -> bytes | None:
        """See `Objects.piece`."""
        return await asyncio.to_thread(self.objects.piece, key, start, length)


def open_store(uri: str) -> Store:
    """Return the store behind a URI; see `open_objects`."""
    return Store(open_objects(uri))


def open_objects(uri: str) -> Objects:
    """Return the objects below a URI, ``file:///path`` or ``s3://bucket/prefix``.

    Nothing is looked at yet.

    Raises:
        StoreError: the URI is not one of these.
    """
    parts = urlsplit(uri)
    if parts.scheme == "s3":
        from temporal_fabric.store.s3 import S3Objects  # noqa: PLC0415 - not every store is there

        return S3Objects.at(uri)
    if parts.scheme != "file" or parts.netloc not in {"", "localhost"}:
        raise StoreError(
            f"unsupported store [uri={uri}]: use file:///absolute/path or s3://bucket/prefix "
            "for the setting 'store'"
        )
    return Folder(Path(unquote(parts.path)))


def local_path(uri: str) -> Path | None:
    """Return the folder or file behind a ``file://`` URI, or None for another scheme."""
    parts = urlsplit(uri)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None
