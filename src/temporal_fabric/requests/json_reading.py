"""JSON, read by a scanner of its own.

`json.loads` knows neither lines nor depth nor keys set twice, and turns a million digits into
an integer before anybody can object. Strings are left to the standard library's C scanner.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from contextlib import suppress
from json import JSONDecodeError, decoder
from typing import TYPE_CHECKING, Any

from temporal_fabric.requests.trees import Document, StopReading, TreeBuilder

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["read_json"]

_STRICT = True
# The C function behind json.loads: (text, position, strict) -> (string, position after it).
_scan: Callable[[str, int, bool], tuple[str, int]] = decoder.scanstring  # type: ignore[attr-defined]

_BLANK = re.compile(r"[ \t\r\n]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_WORD = re.compile(r"-?[A-Za-z]+")
_WORDS: dict[str, Any] = {"true": True, "false": False, "null": None}
_NOT_FINITE = ("NaN", "Infinity", "-Infinity")
_SAFE_DIGITS = 21


def read_json(text: str) -> Document:
    """Read one JSON value; never raises for a body."""
    return _JsonReader(text).read()


class _JsonReader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tree = TreeBuilder()
        self._at = 0
        self._breaks = [match.start() for match in re.finditer("\n", text)]

    def read(self) -> Document:
        with suppress(StopReading):
            self._values()
        return self._tree.document()

    def _values(self) -> None:
        """Read values until the outermost one is complete; what is open lives in the builder."""
        closers: list[str] = []
        self._skip()
        while True:
            opened = self._value()
            if opened:
                closers.append(opened)
                if self._peek() == opened:
                    self._close(closers)
                else:
                    self._before_value(closers)
                    continue
            while closers:
                char = self._peek()
                if char == ",":
                    self._at += 1
                    self._skip()
                    self._before_value(closers)
                    break
                if char != closers[-1]:
                    raise self._syntax(f"expected a comma or {closers[-1]!r}")
                self._close(closers)
            else:
                break
        if self._at < len(self._text):
            raise self._syntax("expected nothing more after the value")

    def _close(self, closers: list[str]) -> None:
        self._at += 1
        closers.pop()
        self._tree.close()
        self._skip()

    def _before_value(self, closers: list[str]) -> None:
        if closers[-1] == "]":
            return
        line = self._line()
        if self._peek() != '"':
            raise self._syntax("expected a key in double quotes")
        self._tree.key(self._string(), line)
        self._skip()
        if self._peek() != ":":
            raise self._syntax("expected a colon")
        self._at += 1
        self._skip()

    def _value(self) -> str | None:
        """Read a scalar and return None, or open a mapping or list and return what closes it."""
        char = self._peek()
        line = self._line()
        if char in ("{", "["):
            self._tree.open({} if char == "{" else [], line)
            self._at += 1
            self._skip()
            return "}" if char == "{" else "]"
        if char == '"':
            self._tree.scalar(self._string(), line)
        else:
            self._bare(line)
        self._skip()
        return None

    def _bare(self, line: int) -> None:
        match = _NUMBER.match(self._text, self._at)
        if match is not None:
            self._at = match.end()
            self._tree.scalar(_number(match), line, match[0][:_SAFE_DIGITS])
            return
        word = _WORD.match(self._text, self._at)
        text = "" if word is None else word[0]
        if text in _NOT_FINITE:
            self._at += len(text)
            self._tree.refuse("E_RANGE", "is not a finite number", line, actual=text)
        elif text in _WORDS:
            self._at += len(text)
            self._tree.scalar(_WORDS[text], line, text)
        else:
            raise self._syntax("expected a value")

    def _string(self) -> str:
        try:
            text, self._at = _scan(self._text, self._at + 1, _STRICT)
        except JSONDecodeError as error:
            self._at = min(error.pos, len(self._text))
            raise self._syntax(error.msg.partition(" at")[0].lower()) from None
        return text

    def _skip(self) -> None:
        match = _BLANK.match(self._text, self._at)
        self._at = match.end() if match is not None else self._at

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _line(self) -> int:
        return bisect_right(self._breaks, self._at - 1) + 1

    def _syntax(self, what: str) -> StopReading:
        line = self._line()
        while self._tree.depth:
            self._tree.close()
        return self._tree.stop("E_PARSE", f"is not valid JSON: {what}", line)


def _number(match: re.Match[str]) -> int | float:
    if match[1] is None and match[2] is None:
        # Not through int(): a long literal would cost quadratic time only to be refused.
        return int(match[0]) if len(match[0]) < _SAFE_DIGITS else float("inf")
    return float(match[0])
