"""Deadlines: a moment with its time zone, or a duration after submission."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from temporal_fabric.clock import stamp
from temporal_fabric.requests.fields import refuse
from temporal_fabric.requests.quantities import duration_seconds

__all__ = ["deadline_at", "read_deadline"]

_YEAR = 366 * 86400


def read_deadline(value: str | float) -> str | float:
    """Return a moment in UTC as text, or seconds after submission as a number."""
    seconds = duration_seconds(value) if isinstance(value, str) else value
    if seconds is not None:
        if not 0 < seconds <= _YEAR:
            raise refuse("E_RANGE", "is not within a year after submission", limit=_YEAR)
        return float(seconds)
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        raise refuse(
            "E_TYPE", "is neither 2026-11-21T08:00:00Z nor a duration such as 2h"
        ) from None
    if moment.tzinfo is None:
        raise refuse("E_RANGE", "has no time zone; end it with Z or +01:00")
    try:
        return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except OverflowError:
        raise refuse("E_RANGE", "is no moment of the calendar in UTC") from None


def deadline_at(deadline: str | float | None, submitted: str) -> str:
    """Return when a deadline is, as a stamp; empty where there is none.

    Args:
        deadline: What `read_deadline` returned.
        submitted: When the request was submitted, as a stamp; now where that is empty.
    """
    if deadline is None:
        return ""
    if isinstance(deadline, str):
        return stamp(datetime.fromisoformat(deadline))
    begun = datetime.fromisoformat(submitted) if submitted else datetime.now(UTC)
    return stamp(begun + timedelta(seconds=deadline))
