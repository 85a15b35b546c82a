"""A store in a bucket of S3, or of a server that speaks it.

A name is created exclusively by a conditional write. The reply to it can be lost, so each
writer leaves a mark beside the content: who finds the name taken sees whether by itself.
"""

from __future__ import annotations

import os
import re
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote_from_bytes, unquote, urlsplit

from temporal_fabric.beneath import CHUNK, Measured, chunks, opened_below
from temporal_fabric.errors import ContentDiffers, StoreError
from temporal_fabric.store.bucket import answer_code, connected, short
from temporal_fabric.store.folder import checked_key

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from obstore.store import S3Store

T = TypeVar("T")

_WRITER = "fabric-writer"
_NOWHERE = ".nowhere"
"""A name that no object bears."""

_TRIES = 3
_PLAIN = re.compile(r"[A-Za-z0-9._/-]*\Z")
_SAFE = "-_.~"
"""Beside letters and digits; some servers disagree with themselves on how to sign others."""

_REMEDIES = {
    "NoSuchBucket": "create the bucket, or mend 'store' in fabric.toml",
    "AccessDenied": "let these credentials read, write, list and delete below 'store'",
    "InvalidAccessKeyId": "mend AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "mend AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "renew the credentials (AWS_SESSION_TOKEN)",
    "PermanentRedirect": "set AWS_REGION to the bucket's region",
    "AuthorizationHeaderMalformed": "set AWS_REGION to the bucket's region",
}
_OTHERWISE = "are AWS_ENDPOINT_URL, AWS_REGION and the credentials right, and is it reachable?"


class S3Objects:
    """See `Objects`."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self.root = f"s3://{bucket}/{prefix}".rstrip("/")
        self._bucket = bucket
        self._prefix = prefix
        self._opened: S3Store | None = None

    @classmethod
    def at(cls, uri: str) -> S3Objects:
        """Return the objects below ``s3://bucket/prefix``.

        Raises:
            StoreError: no bucket is named, or the prefix has unusual characters.
        """
        parts = urlsplit(uri)
        prefix = unquote(parts.path).strip("/")
        if not parts.netloc or parts.query or parts.fragment or not _PLAIN.match(prefix):
            raise StoreError(
                f"unsupported store [uri={uri}]: write s3://bucket/prefix, the prefix with "
                "letters, digits, '.', '_' and '-' only"
            )
        return cls(parts.netloc, prefix)

    def create(self, key: str, data: bytes) -> bool:
        """See `Objects.create`."""
        import obstore  # noqa: PLC0415
        from obstore import exceptions  # noqa: PLC0415

        mark, last = secrets.token_hex(16), ""
        for _ in range(_TRIES):
            try:
                obstore.put(
                    self._store(),
                    _spelt(key),
                    data,
                    mode="create",
                    attributes={_WRITER: mark},
                    use_multipart=False,
                )
            except exceptions.AlreadyExistsError:
                return self._writer(key) == mark
            except (exceptions.GenericError, exceptions.PreconditionError) as exc:
                last = short(exc)  # it may have been written: look before writing again
                if (writer := self._writer(key)) is not None:
                    return writer == mark
            except (exceptions.BaseError, OSError, ValueError) as exc:
                raise self._error(exc, "write to", key) from exc
            else:
                return True
        raise StoreError(f"cannot write to the store [{self.root}/{key}]: {last}; {_OTHERWISE}")

    def read(self, key: str) -> bytes | None:
        """See `Objects.read`."""
        import obstore  # noqa: PLC0415

        return self._found(key, lambda: bytes(obstore.get(self._store(), _spelt(key)).bytes()))

    def piece(self, key: str, start: int, length: int) -> bytes | None:
        """See `Objects.piece`."""
        import obstore  # noqa: PLC0415

        size = self._found(key, lambda: int(obstore.get(self._store(), _spelt(key)).meta["size"]))
        if size is None:
            return None
        end = min(start + length, size)
        if start >= end:
            return b""
        with self._told("read from", key):
            return bytes(obstore.get_range(self._store(), _spelt(key), start=start, end=end))

    def chunks(self, key: str) -> Iterator[bytes]:
        """See `Objects.chunks`."""
        import obstore  # noqa: PLC0415

        with self._told("read from", key):
            for chunk in obstore.get(self._store(), _spelt(key)).stream(min_chunk_size=CHUNK):
                yield bytes(chunk)

    def names(self, prefix: str) -> list[str]:
        """See `Objects.names`."""
        import obstore  # noqa: PLC0415

        with self._told("list", prefix):
            found = obstore.list_with_delimiter(  # pyright: ignore[reportUnknownMemberType]
                self._store(), _spelt(prefix) or None
            )
        paths = [*found["common_prefixes"], *(row["path"] for row in found["objects"])]
        if not paths and self.read(f"{prefix}/{_NOWHERE}".lstrip("/")) is not None:
            # A page of some other server reads as an empty list: ask it something else.
            raise StoreError(
                f"cannot list the store [{self.root}/{prefix}]: nonsense; {_OTHERWISE}"
            )
        names = {unquote(path.rstrip("/").rpartition("/")[2]) for path in paths}
        return sorted(name for name in names if not name.startswith("."))

    def replace(self, key: str, data: bytes) -> None:
        """See `Objects.replace`."""
        import obstore  # noqa: PLC0415

        with self._told("write to", key):
            obstore.put(self._store(), _spelt(key), data, use_multipart=False)

    def put_file(self, key: str, source: Path, sha256: str = "") -> tuple[int, str]:
        """See `Objects.put_file`."""
        import obstore  # noqa: PLC0415

        content = Measured(source.name, sha256)
        with self._told("write to", key), opened_below(source.parent, source.name) as fd:
            obstore.put(
                self._store(),
                _spelt(key),
                content.passing(chunks(fd)),
                chunk_size=8 * CHUNK,
                max_concurrency=4,
            )
        return content.found

    def delete(self, key: str) -> None:
        """See `Objects.delete`."""
        import obstore  # noqa: PLC0415

        with self._told("delete from", key):
            obstore.delete(self._store(), _spelt(key))

    def _writer(self, key: str) -> str | None:
        """Return the mark of who wrote an object, or None where there is no object."""
        import obstore  # noqa: PLC0415

        return self._found(
            key, lambda: str(obstore.get(self._store(), _spelt(key)).attributes.get(_WRITER, ""))
        )

    def _found(self, key: str, ask: Callable[[], T]) -> T | None:
        try:
            with self._told("read from", key):
                return ask()
        except _Absent:
            return None

    @contextmanager
    def _told(self, verb: str, key: str) -> Generator[None]:
        from obstore import exceptions  # noqa: PLC0415

        try:
            yield
        except ContentDiffers:
            raise
        except FileNotFoundError as exc:
            # A missing bucket, or a wrong endpoint's 404, must not be taken for an absence.
            if answer_code(exc) == "NoSuchKey":
                raise _Absent(f"not in the store [{self.root}/{key}]") from exc
            raise self._error(exc, verb, key) from exc
        except (exceptions.BaseError, OSError, ValueError) as exc:
            raise self._error(exc, verb, key) from exc

    def _error(self, error: Exception, verb: str, key: str) -> StoreError:
        remedy = _REMEDIES.get(answer_code(error), _OTHERWISE)
        return StoreError(f"cannot {verb} the store [{self.root}/{key}]: {short(error)}; {remedy}")

    def _store(self) -> S3Store:
        if self._opened is None:
            self._opened = connected(self._bucket, self._prefix)
        return self._opened


class _Absent(StoreError):
    """The server itself says that there is no such object."""


def _spelt(key: str) -> str:
    """Return a key with every character escaped that servers or clients treat apart."""
    parts = checked_key(key).parts
    return "/".join(quote_from_bytes(os.fsencode(part), safe=_SAFE) for part in parts)
