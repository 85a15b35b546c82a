"""Finding the place of a pydantic error in the body as it was written."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from temporal_fabric.requests.texts import pointer
from temporal_fabric.requests.trees import HOLE, Mark
from temporal_fabric.shapes import is_rows, is_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Locator", "Path"]

Path = tuple[str | int, ...]


class Locator:
    """Finds a place of the model in the body as it was written."""

    def __init__(self, tree: Any, mark: Mark, origin: Callable[[str], str] | None = None) -> None:
        self._tree = tree
        self._mark = mark
        self._origin = origin

    def pointer(self, path: Path) -> str:
        """Return the JSON pointer of a path, in the body that the user wrote."""
        place = pointer(path)
        return place if self._origin is None else self._origin(place)

    def resolve(self, loc: Sequence[str | int], *, keep_last: bool) -> tuple[Path, Any]:
        """Return the path of a pydantic location, and the value there.

        Parts that the body does not have (names of union members, of checks) are dropped; the
        last one is kept on request, for a field that is missing.
        """
        node = self._tree
        path: list[str | int] = []
        for position, part in enumerate(loc):
            step, child = _step(node, part)
            if step is not None:
                path.append(step)
                node = child
            elif keep_last and position == len(loc) - 1:
                path.append(part)
                node = HOLE
        return tuple(path), node

    def node(self, path: Path) -> Any:
        """Return the value at a path of the body; a hole where there is none."""
        node = self._tree
        for part in path:
            step, node = _step(node, part)
            if step is None:
                return HOLE
        return node

    def mark(self, path: Path) -> Mark:
        """Return the mark of the deepest node on a path."""
        mark = self._mark
        for part in path:
            child = (mark.children or {}).get(part)
            if child is None:
                break
            mark = child
        return mark


def _step(node: Any, part: str | int) -> tuple[str | int | None, Any]:
    if is_table(node):
        if isinstance(part, str):
            return (part, node[part]) if part in node else (None, None)
        # The short form of a list: its n-th entry is the n-th key.
        key = next(islice(node, part, None), None)
        return (None, None) if key is None else (key, node[key])
    if is_rows(node):
        if isinstance(part, int):
            return (part, node[part]) if part < len(node) else (None, None)
        # A list of names that the models read as a mapping.
        return (node.index(part), part) if part in node else (None, None)
    return None, None
