"""Short forms for amounts: ``A100:2``, ``16+``, ``128GB``, ``1h30m``, ``x2``.

Pure functions from text to numbers. Each returns None for text it does not understand: the
caller knows the field and words the message.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = [
    "GIGABYTE",
    "AtLeast",
    "GpuAsk",
    "duration_seconds",
    "format_number",
    "growth_factor",
    "parse_at_least",
    "parse_gpu",
    "size_bytes",
    "size_gigabytes",
]

GIGABYTE = 1_000_000_000
"""``size_gb`` counts decimal gigabytes; a GiB is written out."""

_UNITS = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "pb": 10**15,
    "ki": 2**10,
    "mi": 2**20,
    "gi": 2**30,
    "ti": 2**40,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_NUMBER = r"[0-9]{1,15}(?:\.[0-9]{1,9})?"
_SIZE = re.compile(rf"({_NUMBER}) ?([A-Za-z]{{1,3}})")
_AT_LEAST = re.compile(rf"({_NUMBER})(\+?)")
_GPU = re.compile(r"(?:([A-Za-z][A-Za-z0-9._-]{0,62})(?::|$))?([0-9]{1,6})?(\+?)")
_GROWTH = re.compile(rf"[x\u00d7]({_NUMBER})")
_SPAN = re.compile(
    rf"(?:({_NUMBER})d)?(?:({_NUMBER})h)?(?:({_NUMBER})(?:m|min))?(?:({_NUMBER})s)?(?:({_NUMBER})ms)?"
)
_CLOCK = re.compile(r"(?:([0-9]{1,5})-)?([0-9]{1,5}):([0-5]?[0-9]):([0-5]?[0-9])")
_SPAN_SECONDS = (86400.0, 3600.0, 60.0, 1.0, 0.001)


class AtLeast(NamedTuple):
    """A number, and whether more is welcome."""

    value: float
    open_ended: bool


class GpuAsk(NamedTuple):
    """A number of devices of one model; no model means any."""

    model: str | None
    devices: int
    open_ended: bool


def size_bytes(text: str) -> int | None:
    """Return the bytes of ``128GB``, ``512 MiB``, ``64Gi``; None without a known unit."""
    match = _SIZE.fullmatch(text)
    unit = _UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        return None
    return round(float(match[1]) * unit)


def size_gigabytes(text: str) -> float | None:
    """Return decimal gigabytes of a size with a unit."""
    size = size_bytes(text)
    return None if size is None else size / GIGABYTE


def parse_at_least(text: str) -> AtLeast | None:
    """Read ``16`` or ``16+``."""
    match = _AT_LEAST.fullmatch(text)
    return None if match is None else AtLeast(float(match[1]), bool(match[2]))


def parse_gpu(text: str) -> GpuAsk | None:
    """Read ``A100:2``, ``A100``, ``2`` or ``A100:2+``."""
    match = _GPU.fullmatch(text)
    if match is None or (match[1] is None and match[2] is None) or text.endswith(":"):
        return None
    return GpuAsk(match[1], int(match[2] or 1), bool(match[3]))


def duration_seconds(text: str) -> float | None:
    """Return the seconds of ``90s``, ``1h30m``, ``2d``, ``01:30:00`` or ``1-00:00:00``."""
    clock = _CLOCK.fullmatch(text)
    if clock is not None:
        days, hours, minutes, seconds = (int(part or 0) for part in clock.groups())
        return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
    span = _SPAN.fullmatch(text)
    if span is None or not any(span.groups()):
        return None
    pairs = zip(span.groups(), _SPAN_SECONDS, strict=True)
    return round(sum(float(part or 0) * unit for part, unit in pairs), 3)


def growth_factor(text: str) -> float | None:
    """Return the factor of ``x2`` or ``x1.5``."""
    match = _GROWTH.fullmatch(text)
    return None if match is None else float(match[1])


def format_number(value: float) -> str:
    """Write a number without a needless ``.0``."""
    return str(int(value)) if value == int(value) else repr(value)
