"""YAML, read from libyaml's events one by one.

PyYAML's own loaders are not used: they crash or run for seconds on hostile input. Events are
taken lazily and every limit is checked before the next one is asked for. The dialect is the
common core of YAML and JSON: ``yes``, ``012`` and ``2026-01-01`` are strings.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from temporal_fabric.requests.trees import HOLE, Document, StopReading, TreeBuilder

__all__ = ["plain_scalar", "read_yaml"]

# A directive before the document: thousands of %TAG lines take libyaml quadratic time.
_DIRECTIVE = re.compile(r"\A(?:[ \t]*+(?:#[^\n]*+)?\r?\n)*+%")
# libyaml takes these for line breaks, no other reader does: two readers, two meanings.
_ODD_BREAK = re.compile("[\x85\u2028\u2029]")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Any] = {"true": True, "false": False, "null": None, "~": None, "": None}
_LONG_NUMBER = 400
_SAFE_DIGITS = 21


def read_yaml(text: str) -> Document:
    """Read one YAML document; never raises for a body."""
    return _YamlReader(text).read()


def plain_scalar(text: str) -> Any:
    """Return what an unquoted scalar stands for; a number beyond 64 bits becomes infinite."""
    if text in _WORDS:
        return _WORDS[text]
    match = _NUMBER.fullmatch(text) if len(text) <= _LONG_NUMBER else None
    if match is None:
        return float("inf") if _is_long_number(text) else text
    if match[1] is None and match[2] is None:
        return int(text) if len(text) < _SAFE_DIGITS else float("inf")
    return float(text)


def _is_long_number(text: str) -> bool:
    return len(text) > _LONG_NUMBER and text.isascii() and text.isdigit()


class _YamlReader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tree = TreeBuilder()
        self._line = 1
        self._documents = 0
        # One flag per open mapping or list: whether a key was read and its value is due.
        self._value_due: list[bool] = []

    def read(self) -> Document:
        try:
            if _DIRECTIVE.search(self._text):
                raise self._stop("E_YAML_FEATURE", "starts with a directive (%)")
            odd = _ODD_BREAK.search(self._text)
            if odd is not None:
                self._line += self._text.count("\n", 0, odd.start())
                raise self._stop(
                    "E_YAML_FEATURE", f"has a raw line separator; write it as \\u{ord(odd[0]):04x}"
                )
            self._events()
        except StopReading:
            return self._tree.document()  # what was found so far is the answer
        except yaml.YAMLError as error:
            self._syntax(error)
        return self._tree.document()

    def _events(self) -> None:
        loader = yaml.CSafeLoader(self._text)
        try:
            while True:
                event: Any = loader.get_event()
                if isinstance(event, yaml.StreamEndEvent):
                    return
                self._line = event.start_mark.line + 1
                self._event(event)
        finally:
            loader.dispose()

    def _event(self, event: Any) -> None:
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise self._stop("E_YAML_FEATURE", "holds several documents")
        elif isinstance(event, yaml.CollectionEndEvent):
            self._value_due.pop()
            self._tree.close()
        elif isinstance(event, yaml.NodeEvent):
            self._node(event)

    def _node(self, event: Any) -> None:
        if self._tree.in_mapping:
            if not self._value_due[-1]:
                self._value_due[-1] = True
                self._key(event)
                return
            self._value_due[-1] = False
        if isinstance(event, yaml.AliasEvent):
            self._tree.refuse(
                "E_YAML_FEATURE",
                "is an alias; write the value out",
                self._line,
                actual=event.anchor,
            )
            return
        decorated = event.anchor or event.tag
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event.value, plain=not event.style)
        else:
            is_map = isinstance(event, yaml.MappingStartEvent)
            self._tree.open({} if is_map else [], self._line)
            self._value_due.append(False)
        if decorated:
            self._tree.add("E_YAML_FEATURE", "has an anchor or a tag", self._line, actual=decorated)

    def _scalar(self, text: str, *, plain: bool) -> None:
        value = plain_scalar(text) if plain else text
        source = None if isinstance(value, str) else text
        self._tree.scalar(value, self._line, source)

    def _key(self, event: Any) -> None:
        if not isinstance(event, yaml.ScalarEvent):
            # libyaml goes on with the key's own events, which no mapping has a place for.
            raise self._stop("E_PARSE", "has a key that is no string")
        self._tree.key(event.value, self._line)
        if event.anchor or event.tag or (event.value == "<<" and not event.style):
            self._tree.add(
                "E_YAML_FEATURE", "has an anchor, a tag or a merge as its key", self._line
            )

    def _stop(self, code: str, message: str) -> StopReading:
        return self._tree.stop(code, message, self._line)

    def _syntax(self, error: yaml.YAMLError) -> None:
        mark = getattr(error, "problem_mark", None)
        # At the end of the text libyaml points behind the last line.
        last = self._text.count("\n") + 1
        line = self._line if mark is None else min(mark.line + 1, last)
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or "not readable"
        self._tree.root = HOLE
        # The whole body cannot be read: the problem has a line, and no path.
        while self._tree.depth:
            self._tree.close()
        try:
            self._tree.add("E_PARSE", f"is not valid YAML: {what}", line)
        except StopReading:
            return
