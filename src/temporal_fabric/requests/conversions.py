"""Requests made from other people's formats, and a report of how each part was mapped.

The result is a plain body that goes through admission like any other. Where a part comes from
is kept beside it, so that a problem names the place in the user's own file.
"""

from __future__ import annotations

from typing import Any

from temporal_fabric.errors import Problem
from temporal_fabric.requests import limits
from temporal_fabric.requests.texts import pointer, show
from temporal_fabric.requests.trees import Document, Mark

__all__ = ["Conversion", "Draft"]

Path = tuple[str | int, ...]


class Conversion:
    """A body made from something else, and how.

    Attributes:
        document: The body with the marks of its source.
        notes: One line for each thing that was mapped, changed or left out.
        default_id: The id to take where neither the body nor the workflow id gives one.
    """

    def __init__(
        self,
        document: Document,
        notes: tuple[str, ...],
        origins: dict[str, str],
        default_id: str | None = None,
    ) -> None:
        self.document = document
        self.notes = notes
        self.default_id = default_id
        self._origins = origins

    def origin(self, path: str) -> str:
        """Return the place in the source for a place of the body; itself where unknown."""
        place = path
        while place and place not in self._origins:
            place = place.rpartition("/")[0]
        return self._origins.get(place, path)


class Draft:
    """A body being made: values with the place they come from."""

    def __init__(self, mark: Mark) -> None:
        self.body: dict[str, Any] = {}
        self.notes: list[str] = []
        self.problems: list[Problem] = []
        self.origins: dict[str, str] = {}
        self._mark = Mark(mark.line, {})

    @property
    def is_full(self) -> bool:
        """Whether enough problems were found to stop looking for more."""
        return len(self.problems) >= limits.READER_PROBLEMS

    def put(self, path: Path, value: Any, mark: Mark, origin: str | None = None) -> None:
        """Set a value of the body."""
        box = self.body
        for part in path[:-1]:
            box = box.setdefault(str(part), {})
        box[str(path[-1])] = value
        self._mark_at(path[:-1], mark)[path[-1]] = mark
        if origin is not None:
            self.origins[pointer(path)] = origin

    def mark_row(self, path: Path, index: int, mark: Mark) -> None:
        """Remember where one item of a list comes from."""
        self._mark_at(path, mark)[index] = mark

    def _mark_at(self, path: Path, mark: Mark) -> dict[str | int, Mark]:
        place = self._mark
        for part in path:
            place.children = place.children or {}
            place = place.children.setdefault(part, Mark(mark.line, {}))
        place.children = place.children or {}
        return place.children

    def note(self, source: str, target: str) -> None:
        """Report one thing of the source."""
        self.notes.append(f"{show(source)} -> {show(target)}")

    def refuse(
        self, code: str, what: str, mark: Mark, origin: str, actual: str | None = None
    ) -> None:
        """Report one thing of the source that cannot be mapped."""
        shown = None if actual is None else show(actual)
        self.problems.append(Problem(code, origin, what, actual=shown, line=mark.line))

    def conversion(self, found: list[Problem], default_id: str | None = None) -> Conversion:
        """Return the finished body, with the problems of reading the source first."""
        document = Document(self.body, self._mark, [*found, *self.problems])
        return Conversion(document, tuple(self.notes), self.origins, default_id)
