"""Building a plain tree from any source, with the limits of the contract and line marks.

Three readers feed one builder (YAML events, JSON tokens, Python objects), so a limit exists
once. A soft problem leaves a hole in the tree and reading goes on; a hard one ends it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from temporal_fabric.errors import Problem
from temporal_fabric.requests import limits
from temporal_fabric.requests.texts import pointer, show

__all__ = ["HOLE", "Document", "Mark", "StopReading", "TreeBuilder"]


class _Hole:
    """Stands where a value was refused."""

    def __repr__(self) -> str:
        return "<refused>"


HOLE = _Hole()
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class StopReading(Exception):
    """Reading ends here; the problems say why."""


@dataclass(slots=True)
class Mark:
    """Where a node stands in its source."""

    line: int | None
    children: dict[str | int, Mark] | None = None
    source: str | None = None
    """How a number, a truth value or null was spelled."""


@dataclass(slots=True)
class Document:
    """What a reader found: the tree, or a hole where it gave up, and the problems."""

    tree: Any
    mark: Mark
    problems: list[Problem]


class _Frame:
    __slots__ = ("box", "key", "mark", "skip")

    def __init__(self, box: dict[str, Any] | list[Any], mark: Mark) -> None:
        self.box = box
        self.mark = mark
        self.key: str | int | None = None
        self.skip = False


class TreeBuilder:
    """Receives the nodes of one body in order."""

    def __init__(self) -> None:
        self.root: Any = HOLE
        self.root_mark = Mark(None)
        self.problems: list[Problem] = []
        self._frames: list[_Frame] = []
        self._nodes = 0

    @property
    def depth(self) -> int:
        """How many mappings and lists are open."""
        return len(self._frames)

    @property
    def in_mapping(self) -> bool:
        """Whether the next node belongs into a mapping."""
        return bool(self._frames) and type(self._frames[-1].box) is dict

    def add(
        self,
        code: str,
        message: str,
        line: int | None,
        *,
        actual: float | str | None = None,
        limit: int | None = None,
    ) -> None:
        """Note a soft problem at the node that is being read."""
        path = pointer([frame.key for frame in self._frames if frame.key is not None])
        shown = show(actual) if isinstance(actual, str) else actual
        self.problems.append(Problem(code, path, message, limit, shown, None, line))
        if len(self.problems) >= limits.READER_PROBLEMS:
            raise StopReading

    def stop(
        self,
        code: str,
        message: str,
        line: int | None,
        *,
        actual: float | str | None = None,
        limit: int | None = None,
    ) -> StopReading:
        """Note a hard problem and return what to raise."""
        self.root = HOLE
        self.add(code, message, line, actual=actual, limit=limit)
        return StopReading()

    def open(self, box: dict[str, Any] | list[Any], line: int | None) -> None:
        """Begin a mapping or a list, as an empty dict or list."""
        if len(self._frames) >= limits.DEPTH:
            self._enter()
            raise self.stop(
                "E_DEPTH", f"is nested deeper than {limits.DEPTH} levels", line, limit=limits.DEPTH
            )
        mark = self._attach(box, line, None)
        mark.children = {}
        self._frames.append(_Frame(box, mark))

    def close(self) -> None:
        """End the mapping or list that was begun last."""
        self._frames.pop()

    def key(self, text: str, line: int | None) -> None:
        """Name the next node of the mapping that is open."""
        frame = self._frames[-1]
        frame.key = text
        frame.skip = False
        if len(text) > limits.KEY_CHARS:
            frame.skip = True
            message = f"is a key longer than {limits.KEY_CHARS} characters"
            self.add("E_TOO_LARGE", message, line, actual=len(text), limit=limits.KEY_CHARS)
        elif _LONE_SURROGATE.search(text):
            frame.skip = True
            self.add("E_ENCODING", "is a key with half a surrogate pair", line)
        elif text in frame.box:
            frame.skip = True
            first = (frame.mark.children or {})[text].line
            where = "" if first is None else f"; line {first} sets it first"
            self.add("E_DUP_KEY", f"is set twice{where}", line)

    def scalar(self, value: Any, line: int | None, source: str | None = None) -> None:
        """Add a string, number, truth value or null."""
        if isinstance(value, str):
            self._string(value, line)
        elif isinstance(value, int) and not limits.INT_MIN <= value <= limits.INT_MAX:
            self.refuse("E_RANGE", "is an integer beyond 64 bits", line, actual=source)
        elif isinstance(value, float):
            if math.isfinite(value):
                # Adding zero turns -0.0, which has no canonical spelling, into 0.0.
                self._attach(value + 0.0, line, source)
            else:
                self.refuse("E_RANGE", "is not a finite number", line, actual=source)
        else:
            self._attach(value, line, source)

    def refuse(
        self,
        code: str,
        message: str,
        line: int | None,
        *,
        actual: str | None = None,
        limit: int | None = None,
    ) -> None:
        """Note a soft problem with a node and leave a hole in its place."""
        self._attach(HOLE, line, None)
        self.add(code, message, line, actual=actual, limit=limit)

    def _string(self, text: str, line: int | None) -> None:
        # Every character takes 1 to 4 bytes: only between the bounds must they be counted.
        if len(text) > limits.STRING_BYTES // 4:
            size = len(text.encode("utf-8", "surrogatepass"))
            if size > limits.STRING_BYTES:
                self._attach(HOLE, line, None)
                message = f"is a string of more than {limits.STRING_BYTES} bytes"
                self.add("E_TOO_LARGE", message, line, actual=size, limit=limits.STRING_BYTES)
                return
        if not text.isascii() and _LONE_SURROGATE.search(text):
            self.refuse("E_ENCODING", "holds half a surrogate pair", line)
            return
        self._attach(text, line, None)

    def _attach(self, value: Any, line: int | None, source: str | None) -> Mark:
        self._nodes += 1
        if self._nodes > limits.NODES:
            message = f"has more than {limits.NODES} values"
            self._frames.clear()
            raise self.stop("E_TOO_LARGE", message, line, limit=limits.NODES)
        mark = Mark(line, None, source)
        if not self._frames:
            self.root, self.root_mark = value, mark
            return mark
        frame = self._frames[-1]
        self._enter()
        box, key = frame.box, frame.key
        if isinstance(box, list):
            box.append(value)
        elif frame.skip:
            return mark
        else:
            box[str(key)] = value
        if frame.mark.children is not None and key is not None:
            frame.mark.children[key] = mark
        return mark

    def _enter(self) -> None:
        """Give the next item of a list its index, so that problems name it."""
        frame = self._frames[-1]
        if isinstance(frame.box, list):
            frame.key = len(frame.box)

    def document(self) -> Document:
        """Return what was read; null where the source had nothing in it."""
        if self.root is HOLE and not self.problems:
            self.root = None
        return Document(self.root, self.root_mark, self.problems)
