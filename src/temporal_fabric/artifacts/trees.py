"""A folder as a listing of its files, whose digest is the folder's.

One line a file, sorted by path::

    <sha256 of the content> <flag><path>

The flag is a blank for a file, ``*`` for one that may be executed, ``@`` for a link, whose content
is its target. So a folder of plain files has the digest that `sha256sum` gives its sorted output,
and the same files give the same digest on every machine. Empty folders are not listed.

In a store the listing lies at ``trees/sha256/<digest>`` and every content at
``blobs/sha256/<digest>``: what is there already is not sent again.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

FILE, PROGRAM, LINK = " ", "*", "@"

_LINE = re.compile(r"([0-9a-f]{64}) ([ *@])(.+)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LONGEST = 4096
_URI = re.compile(r"tree://sha256/([0-9a-f]{64})")


class TreeRefused(Exception):
    """A listing, or a folder, holds what must not travel; the message says what."""


@dataclass(frozen=True, slots=True, order=True)
class Leaf:
    """One file of a folder."""

    path: str
    """Relative to the folder, with ``/``."""

    sha256: str
    flag: str = FILE


def blob_key(sha256: str) -> str:
    """Return where a store keeps the content of that digest."""
    return f"blobs/sha256/{sha256}"


def tree_key(sha256: str) -> str:
    """Return where a store keeps the listing of that digest."""
    return f"trees/sha256/{sha256}"


def tree_uri(sha256: str) -> str:
    """Return the URI of a folder in the store."""
    return f"tree://sha256/{sha256}"


def tree_digest(uri: str) -> str | None:
    """Return the digest in a folder's URI, or None for anything else."""
    found = _URI.fullmatch(uri)
    return found[1] if found else None


def listing(leaves: Iterable[Leaf]) -> bytes:
    """Return the listing of a folder; its sha256 is the folder's digest."""
    lines = (f"{leaf.sha256} {leaf.flag}{leaf.path}\n" for leaf in sorted(leaves))
    return "".join(lines).encode("utf-8", "surrogateescape")


def read_listing(data: bytes, sha256: str) -> list[Leaf]:
    """Return the files of a listing, every path of them below the folder.

    Raises:
        TreeRefused: it is another one than ``sha256`` says, or no listing, or a path climbs.
    """
    if hashlib.sha256(data).hexdigest() != sha256:
        raise TreeRefused("the listing is not what its digest says")
    leaves: list[Leaf] = []
    for line in data.decode("utf-8", "surrogateescape").split("\n")[:-1]:
        found = _LINE.fullmatch(line)
        if found is None:
            raise TreeRefused(f"not a line of a listing: {line[:80]!r}")
        leaves.append(Leaf(found[3], found[1], found[2]))
        check_path(found[3])
    if len({leaf.path for leaf in leaves}) != len(leaves):
        raise TreeRefused("a path is listed twice")
    return leaves


def check_path(path: str) -> None:
    """Refuse a path that is not plainly below its folder.

    Raises:
        TreeRefused: it climbs, is absolute or too long, or has a control character.
    """
    if {"", ".", ".."} & set(path.split("/")):
        raise TreeRefused(f"a path that is not below the folder: {path[:80]!r}")
    if len(path) > _LONGEST or _CONTROL.search(path):
        raise TreeRefused(f"a path with a control character, or too long: {path[:80]!r}")


def check_link(path: str, target: str) -> None:
    """Refuse a link that could lead out of its folder, whatever other links there are.

    A target climbs first, not above the folder, and then only descends: so each link that it
    meets on the way starts below the folder, too.

    Raises:
        TreeRefused: it is absolute, climbs too far, or climbs after it has descended.
    """
    parts = [part for part in target.split("/") if part not in {"", "."}]
    climbs = next((at for at, part in enumerate(parts) if part != ".."), len(parts))
    inside = climbs <= path.count("/") and ".." not in parts[climbs:]
    if not target or target.startswith("/") or _CONTROL.search(target) or not inside:
        raise TreeRefused(f"a link that leads out of the folder: {path[:80]!r} -> {target[:80]!r}")
