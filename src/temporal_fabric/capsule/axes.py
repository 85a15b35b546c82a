"""Ticks of axes: round numbers, few of them, each with a short label.

Steps of 1, 2 and 5 times a power of ten as in Heckbert, "Nice Numbers for Graph Labels"
(Graphics Gems, 1990, pp. 61-63).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))
_ROUND_TIMES = (60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
_DECADES = 3
"""From how many powers of ten on an axis of positive values is logarithmic."""

_ALIKE = 1e-9
"""Values that differ by less than this part of them are drawn as equal."""

_SMALLEST, _LARGEST = 1e-290, 1e300
"""Spans for which doubles hold round steps; others have ticks at their ends alone."""

_FIXED = (-4, 6)
"""Powers of ten between which numbers are written without an exponent."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A range of values, and where its ticks stand."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    """Value and label, the lowest first."""

    logarithmic: bool = False
    unit: str = ""

    def place(self, value: float) -> float:
        """Return where a value stands: 0 at the low end, 1 at the high end."""
        if self.logarithmic:
            value, low, high = (math.log10(one) for one in (value, self.low, self.high))
        else:
            # Halves: the whole range of a double is more than a double holds.
            value, low, high = (one / 2 for one in (value, self.low, self.high))
        return (value - low) / (high - low)


def value_axis(low: float, high: float, most: int = 5) -> Axis:
    """Return the axis of a metric, with room for all its values.

    Args:
        low: The lowest finite value.
        high: The highest one.
        most: How many intervals at most.
    """
    if low > 0 and high / low >= 10**_DECADES:
        return _log_axis(low, high, most)
    if high / 2 - low / 2 <= _ALIKE * max(abs(low), abs(high)):
        room = abs(low) / 10 or 1.0
        low, high = low - room, high + room
    if not _SMALLEST < high - low < _LARGEST:
        return Axis(low, high, ((low, number(low)), (high, number(high))))
    step = round_step(high - low, most)
    first, last = math.floor(low / step), math.ceil(high / step)
    ticks = [at * step for at in range(first, last + 1)]
    return Axis(ticks[0], ticks[-1], tuple((tick, number(tick, step)) for tick in ticks))


def time_axis(low: float, high: float, most: int = 6) -> Axis:
    """Return the axis of a span of seconds, its labels in the unit that its ticks are of."""
    if high <= low:
        high = low + 1.0
    span = high - low
    step = next((one for one in map(float, _ROUND_TIMES) if span / one <= most), 0.0)
    if step == 0.0:
        step = 86400.0 * max(1.0, round_step(span / 86400.0, most))
    elif step == _ROUND_TIMES[0]:
        step = min(step, round_step(span, most))
    size, unit = next((s, u) for s, u in _UNITS if step >= s or u == "s")
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    ticks = tuple(
        (at * step, number(at * step / size, step / size)) for at in range(first, last + 1)
    )
    return Axis(low, high, ticks, unit=unit)


def round_step(span: float, most: int) -> float:
    """Return the smallest step of 1, 2 or 5 times a power of ten that needs so few intervals."""
    rough = span / most
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))


def number(value: float, step: float = 0.0) -> str:
    """Return a number as short as its neighbours on an axis allow."""
    if value == 0:
        return "0"
    power = math.floor(math.log10(abs(value)))
    if not _FIXED[0] <= power < _FIXED[1]:
        digits = max(0, power - math.floor(math.log10(step))) if step else 3
        mantissa, _, exponent = f"{value:.{digits}e}".partition("e")
        return f"{mantissa}e{int(exponent)}"
    if not step:
        return f"{value:.5g}"
    return f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"


def _log_axis(low: float, high: float, most: int) -> Axis:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max(1, math.ceil((last - first) / most))
    last = first + every * math.ceil((last - first) / every)
    ticks = [10.0**power for power in range(first, last + 1, every)]
    return Axis(
        ticks[0], ticks[-1], tuple((tick, number(tick, tick)) for tick in ticks), logarithmic=True
    )
