"""Times as the fabric writes them: UTC, ISO 8601, milliseconds, ``Z``.

Workflow code imports this module for `stamp`; only `now` reads a clock.
"""

from __future__ import annotations

from datetime import UTC, datetime


def stamp(moment: datetime) -> str:
    """Return a time in the fabric's notation."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def from_unix(seconds: float) -> str:
    """Return Unix seconds in the fabric's notation."""
    return stamp(datetime.fromtimestamp(seconds, UTC))


def now() -> str:
    """Return the current time in the fabric's notation."""
    return stamp(datetime.now(UTC))


def utc(moment: datetime) -> datetime:
    """Return a time with its zone; one without a zone is taken as UTC."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
