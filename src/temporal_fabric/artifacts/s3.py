"""Objects of S3, and of servers that speak it, as inputs and outputs."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from temporal_fabric.beneath import CHUNK
from temporal_fabric.errors import ArtifactFailed, TransientBackendError
from temporal_fabric.states import Reason
from temporal_fabric.store.bucket import connected, short
from temporal_fabric.store.unfinished import end_unfinished

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from obstore.store import S3Store

_PIECE = 8 * CHUNK
"""Bytes that travel in one request."""

LARGEST = 5 * 1024**3
"""Bytes of an object that can still be given a name by a copy within the server."""


class Bucket:
    """One bucket. Calls block: use them in a thread."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._opened: S3Store | None = None

    def read(self, key: str, uri: str) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Yield an object with an empty name; with a key that ends with ``/``, all below it.

        Raises:
            ArtifactFailed: not there, or not permitted.
            TransientBackendError: the server does not answer.
        """
        if not key.endswith("/"):
            yield ("", self._chunks(key, uri))
            return
        keys = self._below(key, uri)
        if not keys:
            raise ArtifactFailed(f"input not found: {uri}")
        for found in keys:
            name = found.removeprefix(key)
            if {"", ".", ".."} & set(name.split("/")):
                raise ArtifactFailed(f"E_PATH: an object's name is no path: {uri}: {name}")
            yield (name, self._chunks(found, uri))

    def put(self, key: str, content: Iterator[bytes], size: int, uri: str) -> None:
        """Upload an object of the caller's own; it appears whole or not at all.

        What fits into one piece takes one request. For more, an upload of it that a killed
        worker left unfinished is ended first.
        """
        import obstore  # noqa: PLC0415 - only for a request that uses S3

        with _translated(uri, Reason.OUTPUT_MISSING):
            if size <= _PIECE:
                obstore.put(self._store(), key, b"".join(content), use_multipart=False)
                return
            end_unfinished(self._name, key)
            obstore.put(self._store(), key, content, chunk_size=_PIECE, max_concurrency=4)

    def exists(self, key: str, uri: str) -> bool:
        """Return whether there is an object."""
        import obstore  # noqa: PLC0415

        with _translated(uri, Reason.OUTPUT_MISSING):
            try:
                obstore.head(self._store(), key)
            except FileNotFoundError:
                return False
            return True

    def move(self, source: str, target: str, uri: str) -> None:
        """Copy an object to another name within the server, then drop the old name."""
        import obstore  # noqa: PLC0415

        with _translated(uri, Reason.OUTPUT_MISSING):
            obstore.copy(self._store(), source, target)
            obstore.delete(self._store(), source)

    def remove(self, key: str, uri: str) -> None:
        """Drop an object of the caller's own, and uploads of it, as far as they are there."""
        import obstore  # noqa: PLC0415

        end_unfinished(self._name, key)
        with _translated(uri, Reason.OUTPUT_MISSING):
            obstore.delete(self._store(), key)

    def _chunks(self, key: str, uri: str) -> Iterator[bytes]:
        import obstore  # noqa: PLC0415

        with _translated(uri, Reason.SETUP):
            for chunk in obstore.get(self._store(), key).stream(min_chunk_size=CHUNK):
                yield bytes(chunk)

    def _below(self, key: str, uri: str) -> list[str]:
        import obstore  # noqa: PLC0415

        with _translated(uri, Reason.SETUP):
            pages = obstore.list(self._store(), key)  # pyright: ignore[reportUnknownMemberType]
            keys = [row["path"] for page in pages for row in page]
        return sorted(found for found in keys if not found.endswith("/"))

    def _store(self) -> S3Store:
        if self._opened is None:
            self._opened = connected(self._name)
        return self._opened


def bucket_and_key(uri: str) -> tuple[str, str]:
    """Split ``s3://bucket/key``."""
    parts = urlsplit(uri)
    return (parts.netloc, unquote(parts.path.removeprefix("/")))


@contextmanager
def _translated(uri: str, reason: Reason) -> Generator[None]:
    from obstore import exceptions  # noqa: PLC0415

    try:
        yield
    except FileNotFoundError as exc:
        raise ArtifactFailed(f"not found: {uri}", reason=reason) from exc
    except (
        exceptions.PermissionDeniedError,
        exceptions.UnauthenticatedError,
        exceptions.InvalidPathError,
        exceptions.UnknownConfigurationKeyError,
    ) as exc:
        raise ArtifactFailed(f"refused by the server: {uri}: {short(exc)}", reason=reason) from exc
    except exceptions.BaseError as exc:
        raise TransientBackendError(f"{uri}: {short(exc)}") from exc
