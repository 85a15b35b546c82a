"""From bytes, text or a Python object to a plain tree with line marks.

JSON where the first character is a brace, or the source's name says so; else YAML. There is no
falling back from one to the other: a body means one thing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from temporal_fabric.errors import Problem
from temporal_fabric.requests import limits
from temporal_fabric.requests.json_reading import read_json
from temporal_fabric.requests.trees import HOLE, Document, Mark, StopReading, TreeBuilder
from temporal_fabric.requests.yaml_reading import read_yaml
from temporal_fabric.shapes import is_rows, is_table

__all__ = ["decode", "read_object", "read_text"]


def decode(body: bytes | str) -> str | Problem:
    """Return the text of a body within the size limit, or what is wrong with it."""
    # The limit counts bytes; a character takes at least one.
    size = len(body)
    if size > limits.BODY_BYTES:
        return _too_large(size)
    if isinstance(body, str):
        try:
            size = len(body.encode())
        except UnicodeEncodeError as error:
            line = body.count("\n", 0, error.start) + 1
            return Problem("E_ENCODING", "", "holds half a surrogate pair", line=line)
        return _too_large(size) if size > limits.BODY_BYTES else body.removeprefix("\ufeff")
    try:
        return body.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        message = f"is not UTF-8 at byte {error.start}; save the file as UTF-8"
        return Problem("E_ENCODING", "", message, line=line)


def _too_large(size: int) -> Problem:
    message = (
        f"is larger than {limits.BODY_BYTES} bytes; put the data in files and refer to them by URI"
    )
    return Problem("E_TOO_LARGE", "", message, limits.BODY_BYTES, size)


def read_text(text: str, *, source: str | None = None) -> Document:
    """Read YAML or JSON text."""
    suffix = (source or "").rpartition(".")[2].lower()
    first = re.match(r"\s*", text)
    at = 0 if first is None else first.end()
    is_json = suffix == "json" or (text[at : at + 1] == "{" and suffix not in ("yaml", "yml"))
    return read_json(text) if is_json else read_yaml(text)


def read_object(value: Any) -> Document:
    """Copy a Python object made of mappings, lists and scalars into a plain tree."""
    reader = _ObjectReader()
    with suppress(StopReading):
        reader.node(value)
    return reader.tree.document()


class _ObjectReader:
    def __init__(self) -> None:
        self.tree = TreeBuilder()
        self._size = 0

    def node(self, value: Any) -> None:
        # Recursion ends at the builder's depth limit, also in an object that holds itself.
        if isinstance(value, Mapping):
            self._mapping(value)  # pyright: ignore[reportUnknownArgumentType]
        elif is_rows(value):
            self.tree.open([], None)
            # Not by the subclass's own iteration, which may be anything.
            for item in _items(value):
                self.node(item)
            self.tree.close()
        else:
            self._scalar(value)

    def _mapping(self, value: Mapping[Any, Any]) -> None:
        self.tree.open({}, None)
        for key, item in _pairs(value):
            if isinstance(key, str):
                text = str.__str__(key)
                self._count(text)
                self.tree.key(text, None)
                self.node(item)
            else:
                self.tree.add(
                    "E_TYPE", f"has a key that is {type(key).__name__}, not a string", None
                )
        self.tree.close()

    def _scalar(self, value: Any) -> None:
        # Subclasses (string enums, numpy's float) become the plain type.
        if value is None or isinstance(value, bool):
            self.tree.scalar(value, None)
        elif isinstance(value, str):
            text = str.__str__(value)
            self._count(text)
            self.tree.scalar(text, None)
        elif isinstance(value, int):
            self.tree.scalar(int.__int__(value), None)
        elif isinstance(value, float):
            self.tree.scalar(float.__float__(value), None)
        else:
            message = f"is {type(value).__name__}, which JSON and YAML do not have"
            self.tree.refuse("E_TYPE", message, None)

    def _count(self, text: str) -> None:
        self._size += len(text)
        if self._size > limits.BODY_BYTES:
            message = f"holds more than {limits.BODY_BYTES} characters of text"
            raise self.tree.stop("E_TOO_LARGE", message, None, limit=limits.BODY_BYTES)


def _pairs(value: Mapping[Any, Any]) -> list[tuple[Any, Any]]:
    if is_table(value):
        table: dict[str, Any] = value
        return list(dict[str, Any].items(table))
    try:
        return [(key, value[key]) for key in value]
    except Exception as error:  # noqa: BLE001 - a foreign mapping may raise anything
        return [("", error)]


def _items(value: list[Any] | tuple[Any, ...]) -> list[Any]:
    if isinstance(value, list):
        return list[Any].copy(value)
    return list(tuple[Any, ...].__iter__(value))


def hole(problem: Problem) -> Document:
    """Return the document of a body that could not be read at all."""
    return Document(HOLE, Mark(None), [problem])
