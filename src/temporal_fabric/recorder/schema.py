"""The columns of every table we write, with units and meanings in their metadata."""

from __future__ import annotations

from temporal_fabric.recorder.arrow import Schema, arrow

SCHEMA_VERSION = 1

_TELEMETRY = {
    "epoch": ("int32", "", "the attempt's fencing token"),
    "seq": ("int64", "", "number of the payload's line within its epoch, from 1"),
    "time": ("time", "UTC", "when it was written, or else read"),
    "step": ("int64", "", "what the payload gave as step; null where it gave none"),
    "name": ("string", "", "the metric"),
    "value": ("double", "the payload's own", "the metric's value"),
}

_DETAIL = {"detail": ("string", "JSON", "an event's fields; null for a metric")}

_EVENTS = {
    "seq": ("int64", "", "number of the event within the capsule, from 1, without a gap"),
    "epoch": ("int32", "", "the attempt's fencing token; 0 before the first"),
    "time": ("time", "UTC", "when it happened"),
    "event": ("string", "", "state, stage, event, dropped, rejected, truncated or recorder"),
    "state": ("string", "", "the state entered; null for other events"),
    "reason": ("string", "", "why the state was entered; null where there is no reason"),
    "detail": ("string", "JSON", "further fields"),
}


def telemetry() -> Schema:
    """Return the schema of a capsule's ``telemetry.parquet``."""
    return _schema("telemetry", _TELEMETRY)


def segment() -> Schema:
    """Return the schema of a live segment: metrics and events in one table."""
    return _schema("segment", _TELEMETRY | _DETAIL)


def events() -> Schema:
    """Return the schema of a capsule's ``events.parquet``."""
    return _schema("events", _EVENTS)


def _schema(table: str, columns: dict[str, tuple[str, str, str]]) -> Schema:
    pa = arrow()

    types = {
        "int32": pa.int32(),
        "int64": pa.int64(),
        "double": pa.float64(),
        "string": pa.string(),
        "time": pa.timestamp("ms", tz="UTC"),
    }
    fields = [
        pa.field(name, types[kind], metadata={"unit": unit, "meaning": meaning})
        for name, (kind, unit, meaning) in columns.items()
    ]
    return pa.schema(fields, {"schema_version": str(SCHEMA_VERSION), "table": table})
