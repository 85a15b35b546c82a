"""Along which axis an array is cut for several devices; needs no JAX, so that lint can tell."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["cut_axis", "uncut"]

_LEAST = 1024
"""Entries below which an array lies whole on every device: to exchange it would cost more."""


def cut_axis(shape: Sequence[int], devices: int) -> int | None:
    """Return the axis along which an array is cut into equal parts; None: it lies whole.

    The first one that divides into parts of more than one entry: of an image the rows, and the
    same rows of its differences, which stand as (axes, rows, columns).
    """
    if math.prod(shape) < _LEAST:
        return None
    return next((at for at, n in enumerate(shape) if n % devices == 0 and n > devices), None)


def uncut(shapes: Mapping[str, Sequence[int]], devices: int) -> Iterator[tuple[str, str]]:
    """Yield each slot that is large and cannot be cut, and what to do about it."""
    for name, shape in shapes.items():
        if math.prod(shape) >= _LEAST and cut_axis(shape, devices) is None:
            yield (
                name,
                (
                    f"no side of {list(shape)} falls into {devices} equal parts, one for each"
                    f" device; pad one to a multiple of {devices}, or change `devices`"
                ),
            )
