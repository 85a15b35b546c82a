"""One line of telemetry: what is understood of it, and why it is refused.

A line is a JSON object. Its numbers are metrics; ``step`` orders them, ``at`` is their time in
Unix seconds, ``progress`` is from 0 to 1, ``stage`` and ``event`` are short texts. A payload
may write anything, so every limit is checked here, before a row exists.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from temporal_fabric.shapes import is_table

MARK = b"::fabric:: "
"""Begins a line of telemetry on standard output."""

MAX_LINE = 64 * 1024
MAX_METRICS = 256
MAX_NAME = 128
MAX_TEXT = 1000

_INT64 = 2**63
_LATEST_S = 253_402_300_799.0
"""The end of the year 9999: later times have no ISO 8601 form."""

_PLACED = frozenset({"step", "at"})


class LineRefused(Exception):
    """A line is not telemetry; the message says why."""


class Row(NamedTuple):
    """One row of a segment. A metric has a value, an event has a detail."""

    seq: int
    """Number of the line within its epoch, from 1; the metrics of one line share it."""

    at: int
    """Unix milliseconds."""

    step: int | None
    name: str
    value: float | None
    detail: str | None
    """JSON object."""


def read_line(line: bytes, seq: int, now_ms: int) -> list[Row]:
    """Return the rows of one line.

    Args:
        line: The line without its end and without the mark.
        seq: The number the line gets.
        now_ms: The time of a line that gives none, in Unix milliseconds.

    Raises:
        LineRefused: it is not an object, holds nothing to record, or exceeds a limit.
    """
    found = _object(line)
    step, at = _step(found.get("step")), _at(found.get("at"), now_ms)
    rows = [
        Row(seq, at, step, _name(name), _number(value), None)
        for name, value in found.items()
        if type(value) in {int, float} and name not in _PLACED
    ]
    if len(rows) > MAX_METRICS:
        raise LineRefused(f"more than {MAX_METRICS} numbers")
    if "progress" in found and not _is_part(found["progress"]):
        raise LineRefused("progress is a number from 0 to 1")
    for kind in ("stage", "event"):
        if isinstance(found.get(kind), str):
            detail = _detail(kind, found)
            rows.append(Row(seq, at, step, kind, None, detail))
    if not rows:
        raise LineRefused("no number, stage or event")
    return rows


def note(seq: int, now_ms: int, name: str, **detail: Any) -> Row:
    """Return an event of the recorder itself."""
    return Row(seq, now_ms, None, name, None, json.dumps(detail))


def _object(line: bytes) -> dict[str, Any]:
    if len(line) > MAX_LINE:
        raise LineRefused(f"longer than {MAX_LINE} bytes")
    try:
        found: Any = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise LineRefused(f"not JSON: {exc}") from exc
    if not is_table(found):
        raise LineRefused("not an object")
    return found


def _step(value: Any) -> int | None:
    if value is None:
        return None
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int or not -_INT64 <= value < _INT64:
        raise LineRefused("step is a whole number of 64 bits")
    return value


def _at(value: Any, now_ms: int) -> int:
    if value is None:
        return now_ms
    if type(value) not in {int, float} or not 0 <= value <= _LATEST_S:
        raise LineRefused("at is Unix seconds")
    return int(value * 1000)


def _name(name: str) -> str:
    # What is not printable is also what no UTF-8 file can hold: half of a surrogate pair.
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise LineRefused(f"a name is 1 to {MAX_NAME} printable characters")
    return name


def _number(value: float) -> float:
    try:
        return float(value)
    except OverflowError as exc:
        raise LineRefused("a number is too large") from exc


def _is_part(value: Any) -> bool:
    return type(value) in {int, float} and 0 <= value <= 1


def _detail(kind: str, found: dict[str, Any]) -> str:
    """Return an event's text, and with an event the other texts of its line."""
    kept = {kind: found[kind]}
    if kind == "event":
        kept |= {key: value for key, value in found.items() if isinstance(value, str)}
        kept.pop("stage", None)
    return json.dumps({key[:MAX_NAME]: value[:MAX_TEXT] for key, value in kept.items()})
