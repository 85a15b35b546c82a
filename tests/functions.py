"""Functions that tests run as experiments; what they do not use must stay behind."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

unrelated = pytest.mark.asyncio

EXPONENT = 2


class Circle:
    """A shape that only `area` uses."""

    def __init__(self, radius: float) -> None:
        self.radius = radius

    def area(self) -> float:
        """Return its area."""
        return math.pi * self.radius**EXPONENT


def area(radius: float) -> float:
    """Return the area of a circle, by way of a class and a constant."""
    return Circle(radius).area()


LINE_OF_AREA = 29


def square(number: int) -> int:
    """Return a square."""
    return number * number


def inverse(number: int) -> float:
    """Return an inverse, or raise."""
    return 1 / number


def incomplete() -> Sequence[int]:
    """Use a name that this module does not define."""
    return defined_nowhere  # type: ignore # noqa: F821, PGH003 # pyright: ignore
