"""A curve in one line of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int | None = None) -> str:
    """Draw values as one bar a character, the lowest at the bottom, the highest at the top.

    Args:
        values: Finite numbers, oldest first.
        width: Characters at most; of more values evenly spaced ones are shown, the last always.
    """
    if width is not None and len(values) > width:
        last = len(values) - 1
        values = [values[round(at * last / (width - 1))] for at in range(width)]
    low, high = min(values, default=0.0), max(values, default=0.0)
    scale = (len(_BARS) - 1) / ((high - low) or 1.0)
    return "".join(_BARS[round((value - low) * scale)] for value in values)
