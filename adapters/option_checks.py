"""What is checked alike in the options of every backend: names, numbers, and what is true or false.

Every function yields one problem for each thing that is wrong; ``at`` is the path of the table.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from temporal_fabric.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


@dataclass(frozen=True, slots=True)
class Span:
    """The numbers that an option may be, both ends included."""

    least: float
    most: float
    whole: bool = False
    code: str = "E_RANGE"
    besides: str = ""
    """What else is to be said about it, in a few words."""

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        more = f", {self.besides}" if self.besides else ""
        return f"{kind} from {self.least} to {self.most}{more}"

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        return self.least <= value <= self.most


def names(options: Mapping[str, Any], shape: type[Any], at: str) -> Iterator[Problem]:
    """Yield the options that a backend does not have.

    Args:
        options: The table as it was read.
        shape: The dataclass with the options that there are.
        at: Path of the table.
    """
    known = tuple(field.name for field in fields(shape))
    for name in options:
        if name not in known:
            text = f"unknown option {name!r}; there are {', '.join(known)}"
            yield Problem("E_UNKNOWN_FIELD", f"{at}/{name}", text, allowed=known)


def numbers(options: Mapping[str, Any], spans: Mapping[str, Span], at: str) -> Iterator[Problem]:
    """Yield the numbers that are none, or outside their span."""
    for name, span in spans.items():
        if name in options and options[name] not in span:
            yield Problem(span.code, f"{at}/{name}", f"{name} is {span}")


def flags(options: Mapping[str, Any], these: Iterable[str], at: str) -> Iterator[Problem]:
    """Yield the options that have to be true or false, and are neither."""
    for name in these:
        if not isinstance(options.get(name, False), bool):
            yield Problem("E_TYPE", f"{at}/{name}", f"{name} is true or false")
