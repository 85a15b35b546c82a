"""Numbers with their units, as people read them."""

from __future__ import annotations

_THOUSAND = 1000


def size_text(count: int) -> str:
    """Return bytes in the largest unit that leaves a number above one."""
    size, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while size >= _THOUSAND and len(units) > 1:
        size, units = size / _THOUSAND, units[1:]
    return f"{size:.0f} {units[0]}" if units[0] == "B" else f"{size:.1f} {units[0]}"


def duration_text(seconds: float) -> str:
    """Return a duration in its two largest units, as ``2 h 05 min``."""
    whole = max(0, round(seconds))
    if whole < 10:  # noqa: PLR2004 - below ten seconds the tenths tell something
        return f"{max(0.0, seconds):.1f} s"
    minutes, rest = divmod(whole, 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    if not hours:
        return f"{minutes} min {rest:02d} s"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours:02d} h" if days else f"{hours} h {minutes:02d} min"
