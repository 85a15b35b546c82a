"""What every store keeps: named objects, each whole or absent.

Two operations carry all guarantees: `Objects.create` is exclusive, so two writers can never
both own a name, and no name shows before all of its content is there for good.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Objects(Protocol):
    """A tree of objects. The calls block; each may be repeated after any error.

    A key is a relative path with ``/`` and without ``..``; a part of it may hold any character
    that a file's name may hold. What a call has returned survives a crash of any machine. Each
    call raises `StoreError` where the place cannot be reached, is full, or answers nonsense:
    nothing unknown is reported as absent.
    """

    root: str
    """The URI without a trailing slash; an object's URI is ``root/key``."""

    def create(self, key: str, data: bytes) -> bool:
        """Create an object exclusively; False, changing nothing, if it exists.

        Of many calls at once exactly one gets True, also where replies are lost on the way.
        After an error the object may exist all the same: then a repeated call says False.
        """
        ...

    def read(self, key: str) -> bytes | None:
        """Return an object's content, or None where there is none."""
        ...

    def piece(self, key: str, start: int, length: int) -> bytes | None:
        """Return a piece of an object, shorter at its end; None where there is no object."""
        ...

    def chunks(self, key: str) -> Iterator[bytes]:
        """Yield an object's content piece by piece.

        Raises:
            StoreError: also where there is no such object.
        """
        ...

    def names(self, prefix: str) -> list[str]:
        """Return the sorted names directly below ``prefix``, those with a leading dot left out."""
        ...

    def replace(self, key: str, data: bytes) -> None:
        """Write an object whole, replacing an older one."""
        ...

    def put_file(self, key: str, source: Path, sha256: str = "") -> tuple[int, str]:
        """Copy a local regular file into the store; return size and sha256 of what was stored.

        Args:
            key: Where to; an older object is replaced.
            source: The file; a link is refused.
            sha256: Hex digest that the content must have to be stored at all.

        Raises:
            StoreError: also where the source is a link, gone, or not what ``sha256`` says.
        """
        ...

    def delete(self, key: str) -> None:
        """Drop an object, if it is there."""
        ...
