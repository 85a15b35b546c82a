"""One place under which an output is to be stored: a path, or an object of S3.

What is brought there first lies beside the final name, under one that only its attempt gives.
"""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Protocol

from temporal_fabric import durable
from temporal_fabric.artifacts.s3 import LARGEST, Bucket, bucket_and_key
from temporal_fabric.beneath import CHUNK
from temporal_fabric.errors import ArtifactFailed
from temporal_fabric.states import Reason
from temporal_fabric.store import local_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Target(Protocol):
    """A final place. The calls block, and each may be repeated after any crash.

    Raises (every method):
        OSError: a path refuses.
        ArtifactFailed: a server refuses, or what is asked for is not there.
        TransientBackendError: a server does not answer.
    """

    def bring(self, content: Iterator[bytes], size: int) -> None:
        """Lay content beside the final name; it appears whole or not at all."""
        ...

    def is_brought(self) -> bool:
        """Return whether that lies there, as this host sees it."""
        ...

    def name(self) -> None:
        """Give the final name to what was brought."""
        ...

    def named(self) -> Iterator[bytes]:
        """Yield what bears the final name."""
        ...

    def drop(self) -> None:
        """Drop what was brought, as far as it is there."""
        ...


def target_of(uri: str, aside: str) -> Target:
    """Return the place of a URI.

    Args:
        uri: ``file://`` or ``s3://``.
        aside: The name beside the final one.
    """
    path = local_path(uri)
    return _Object(uri, aside) if path is None else _File(uri, path, aside)


class _File:
    def __init__(self, uri: str, path: Path, aside: str) -> None:
        self._uri, self._path, self._aside = uri, path, path.with_name(aside)

    def bring(self, content: Iterator[bytes], size: int) -> None:
        del size
        if self._path.is_dir():
            raise ArtifactFailed(
                f"{self._uri} is a folder, the output is a file", reason=Reason.OUTPUT_MISSING
            )
        durable.make_folder(self._path.parent)
        _write(self._aside, content)

    def is_brought(self) -> bool:
        return self._aside.exists()

    def name(self) -> None:
        self._aside.replace(self._path)
        durable.sync_folder(self._path.parent)

    def named(self) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk

    def drop(self) -> None:
        self._aside.unlink(missing_ok=True)


class _Object:
    def __init__(self, uri: str, aside: str) -> None:
        bucket, self._key = bucket_and_key(uri)
        folder, slash, _ = self._key.rpartition("/")
        self._uri, self._bucket, self._aside = uri, Bucket(bucket), f"{folder}{slash}{aside}"

    def bring(self, content: Iterator[bytes], size: int) -> None:
        if size > LARGEST:
            raise ArtifactFailed(
                f"{self._uri}: the output is larger than 5 GiB, which S3 does not copy: "
                "split it, or give it no target_uri and get it from the capsule",
                reason=Reason.OUTPUT_MISSING,
            )
        self._bucket.put(self._aside, content, size, self._uri)

    def is_brought(self) -> bool:
        return self._bucket.exists(self._aside, self._uri)

    def name(self) -> None:
        self._bucket.move(self._aside, self._key, self._uri)

    def named(self) -> Iterator[bytes]:
        for _, content in self._bucket.read(self._key, self._uri):
            yield from content

    def drop(self) -> None:
        self._bucket.remove(self._aside, self._uri)


def _write(aside: Path, content: Iterator[bytes]) -> None:
    # Under a name of its own first: a worker that wakes up here after another took over must
    # not truncate what the other is about to name.
    for left in aside.parent.glob(f"{aside.name}.*"):
        left.unlink(missing_ok=True)
    temporary = aside.with_name(f"{aside.name}.{secrets.token_hex(6)}")
    with temporary.open("xb") as file:
        for chunk in content:
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(aside)
