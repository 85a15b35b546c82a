"""A store in a folder of a POSIX file system."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, TypeVar

from temporal_fabric import durable
from temporal_fabric.beneath import chunks, opened_below
from temporal_fabric.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

T = TypeVar("T")


class Folder:
    """See `Objects`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = path.as_uri()

    def create(self, key: str, data: bytes) -> bool:
        """See `Objects.create`."""
        return _ordered(self._path(key), lambda path: durable.create(path, data))

    def read(self, key: str) -> bytes | None:
        """See `Objects.read`."""
        return self._read(key, lambda path: path.read_bytes())

    def piece(self, key: str, start: int, length: int) -> bytes | None:
        """See `Objects.piece`."""

        def read(path: Path) -> bytes:
            with path.open("rb") as file:
                file.seek(start)
                return file.read(length)

        return self._read(key, read)

    def chunks(self, key: str) -> Iterator[bytes]:
        """See `Objects.chunks`; no link below the folder is followed."""
        self._path(key)
        try:
            with opened_below(self.path.resolve(), key) as fd:
                yield from chunks(fd)
        except OSError as exc:
            raise StoreError(f"cannot read from the store [key={key}]: {exc}") from exc

    def names(self, prefix: str) -> list[str]:
        """See `Objects.names`."""
        try:
            entries = [entry.name for entry in self._path(prefix).iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as exc:
            raise StoreError(f"cannot list the store [prefix={prefix}]: {exc}") from exc
        return sorted(name for name in entries if not name.startswith("."))

    def replace(self, key: str, data: bytes) -> None:
        """See `Objects.replace`."""
        _ordered(self._path(key), lambda path: durable.replace(path, data))

    def put_file(self, key: str, source: Path, sha256: str = "") -> tuple[int, str]:
        """See `Objects.put_file`."""
        return _ordered(self._path(key), lambda path: durable.copy_hashed(source, path, sha256))

    def delete(self, key: str) -> None:
        """See `Objects.delete`."""
        _ordered(self._path(key), lambda path: path.unlink(missing_ok=True))

    def _read(self, key: str, read: Callable[[Path], bytes]) -> bytes | None:
        try:
            return read(self._path(key))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as exc:
            raise StoreError(f"cannot read from the store [key={key}]: {exc}") from exc

    def _path(self, key: str) -> Path:
        return self.path.joinpath(*checked_key(key).parts)


def checked_key(key: str) -> PurePosixPath:
    """Return a key as a path.

    Raises:
        StoreError: it is absolute or climbs.
    """
    path = PurePosixPath(key)
    if path.is_absolute() or ".." in path.parts:
        raise StoreError(f"a store key is a relative path without '..' [key={key}]")
    return path


def _ordered(path: Path, write: Callable[[Path], T]) -> T:
    try:
        durable.make_folder(path.parent)
        return write(path)
    except OSError as exc:
        raise StoreError(
            f"cannot write to the store [path={path}]: {exc}; free space or mend its permissions"
        ) from exc
