"""Trying a store out: whether it does what the fabric relies on."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from temporal_fabric.errors import StoreError

if TYPE_CHECKING:
    from temporal_fabric.store.objects import Objects

_FOLDER = "probes"


def probe(objects: Objects) -> None:
    """Write, create exclusively, read, list and delete one small object of its own name.

    Raises:
        StoreError: a step failed; it says which, and what to do.
    """
    name = secrets.token_hex(8)
    key = f"{_FOLDER}/{name}"
    _require(objects.create(key, b"first"), objects, "says that a fresh name is taken")
    try:
        second = objects.create(key, b"second")
        _require(
            not second,
            objects,
            "lets two writers create one name; it needs conditional writes (If-None-Match)",
        )
        _require(objects.read(key) == b"first", objects, "gives back other content")
        _require(name in objects.names(_FOLDER), objects, "does not list what was written")
    finally:
        objects.delete(key)
    _require(objects.read(key) is None, objects, "keeps what was deleted")


def _require(true: bool, objects: Objects, fault: str) -> None:  # noqa: FBT001 - a sentence
    if not true:
        raise StoreError(f"the store {fault} [store={objects.root}]: use another server for it")
