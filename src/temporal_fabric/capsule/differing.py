"""What differs between two capsules: what was asked for, how it ended, and what it left."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from temporal_fabric.shapes import is_list, is_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from temporal_fabric.capsule.reading import Capsule

_ENDED = ("state", "reason", "message", "exit_code", "signal", "backend", "epoch")
_NAMES = ("tenant", "id")
"""Of the request: two experiments have two names, which is no difference worth a line."""

_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not the same in both."""

    what: str
    """``request``, ``result`` or ``file``."""

    path: str
    """JSON pointer into the request, field of the result, or file of the capsule."""

    first: Any
    """In the first capsule; None where it is not there."""

    second: Any


def differences(first: Capsule, second: Capsule) -> list[Difference]:
    """Return what differs, the request first.

    Of the files those that the payload has written: the records of a run are never the same.

    Raises:
        CapsuleError: a capsule lacks its request or its result.
        StoreError: one is out of reach.
    """
    requests = [_flat(json.loads(one.read("request.json"))) for one in (first, second)]
    for request in requests:
        for name in _NAMES:
            request.pop(f"/{name}", None)
    results = [{name: one.result.get(name) for name in _ENDED} for one in (first, second)]
    files = [_files(one) for one in (first, second)]
    return [
        *_compared("request", *requests),
        *_compared("result", *results),
        *_compared("file", *files),
    ]


def _compared(
    what: str, first: Mapping[str, Any], second: Mapping[str, Any]
) -> Iterator[Difference]:
    for path in sorted(first.keys() | second.keys()):
        found = Difference(what, path, first.get(path), second.get(path))
        if found.first != found.second:
            yield found


def _flat(value: Any, at: str = "") -> dict[str, Any]:
    """Return every leaf of a JSON value by its pointer."""
    children: dict[str, Any] = {}
    if is_table(value):
        children = {name.replace("~", "~0").replace("/", "~1"): value[name] for name in value}
    elif is_list(value):
        children = {str(place): item for place, item in enumerate(value)}
    if not children:
        return {at: value}
    found: dict[str, Any] = {}
    for name, item in children.items():
        found |= _flat(item, f"{at}/{name}")
    return found


def _files(capsule: Capsule) -> dict[str, str]:
    """Return size and digest of what the payload has written, outputs and logs."""
    kept = ("artifacts/", "logs/", "checkpoints/")
    return {
        entry.path: f"{entry.size} bytes, sha256 {entry.sha256[:_DIGITS]}"
        for entry in capsule.manifest.files
        if entry.path.startswith(kept)
    }
