"""Credentials written out in a request, where they would stay in the history for good."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from temporal_fabric.requests.consistency import Contradiction
from temporal_fabric.requests.texts import has_credential, looks_like_credential
from temporal_fabric.shapes import is_rows, is_table

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["leaked_credentials"]

_WHAT = "is a credential written out; declare it under `secrets` as secret://env/NAME"


def leaked_credentials(body: dict[str, Any]) -> list[Contradiction]:
    """Return the variables and arguments of the payload that hold a credential."""
    payload = body.get("payload")
    if not is_table(payload):
        return []
    return [
        Contradiction("E_SECRET", ("payload", kind, *path), _WHAT)
        for kind, content in payload.items()
        if is_table(content)
        for path in (*_variables(content), *_arguments(content))
    ]


def _variables(content: dict[str, Any]) -> Iterator[tuple[str | int, ...]]:
    for field in ("env", "kwargs"):
        table = content.get(field)
        for name, value in table.items() if is_table(table) else ():
            if isinstance(value, str) and looks_like_credential(name, value):
                yield field, name


def _arguments(content: dict[str, Any]) -> Iterator[tuple[str | int, ...]]:
    for field in ("command", "args", "source"):
        rows = content.get(field)
        for index, value in enumerate(rows if is_rows(rows) else ()):
            if isinstance(value, str) and has_credential(value):
                yield field, index
