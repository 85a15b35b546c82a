"""Subbands of a periodic orthonormal wavelet along one axis, written out as small matrices."""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import TYPE_CHECKING

from temporal_fabric.flows.wavelets import level_matrix, lowpass

if TYPE_CHECKING:
    from collections.abc import Iterator

    from temporal_fabric.flows.precision import F64

__all__ = ["Band", "atoms", "bands", "support"]

Band = tuple[int, bool]
"""A level from 1 (finest), and whether it is the band of details."""


@lru_cache(maxsize=16)
def atoms(name: str, levels: int, side: int) -> dict[Band, F64]:
    """Return for each band its atoms, a row each: averages of all levels too, (side/2^j, side)."""
    found: dict[Band, F64] = {}
    averages: F64 | None = None
    for level in range(1, levels + 1):
        half = side >> level
        matrix = level_matrix(name, 2 * half)
        both = matrix if averages is None else matrix @ averages
        averages = both[:half]
        found[level, False], found[level, True] = averages, both[half:]
    return found


def bands(levels: int, axes: int) -> Iterator[tuple[Band, ...]]:
    """Yield the bands of a separable transform: one band of each axis, all of one level."""
    for level in range(1, levels + 1):
        for details in itertools.product((False, True), repeat=axes):
            if any(details):
                yield tuple((level, detail) for detail in details)
    yield ((levels, False),) * axes


def support(name: str, levels: int) -> int:
    """Return how many samples the longest atom covers."""
    return (len(lowpass(name)) - 1) * ((1 << levels) - 1) + 1
