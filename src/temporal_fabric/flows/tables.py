"""The tables of a run's capsule: telemetry and events, as Parquet."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from temporal_fabric import durable
from temporal_fabric.flows.telemetry import CHECKS, COLUMNS
from temporal_fabric.recorder.arrow import Schema, Table, arrow, parquet

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["SCHEMA_VERSION", "events", "merge", "telemetry"]

SCHEMA_VERSION = 3
"""Of both tables; the seed family's telemetry is version 3."""

_EVENTS = {"run_id": "string", "t_wall_ms": "float64", "event": "string", "payload": "string"}


def telemetry(chunks: Sequence[dict[str, list[Any]]], dtype: str) -> bytes:
    """Return telemetry rows as a Parquet file; null where a column does not apply."""
    columns = {name: [row for one in chunks for row in one[name]] for name in COLUMNS | CHECKS}
    return _file(arrow().Table.from_pydict(columns, schema=_schema("telemetry", dtype)))


def events(rows: Sequence[dict[str, Any]], dtype: str) -> bytes:
    """Return events as a Parquet file, their payloads as JSON."""
    plain = [
        row | {"payload": json.dumps(row["payload"], allow_nan=False, sort_keys=True)}
        for row in rows
    ]
    return _file(arrow().Table.from_pylist(plain, schema=_schema("events", dtype)))


def merge(table: str, parts: Sequence[Path], target: Path, dtype: str) -> None:
    """Write the rows of several files into one, durably."""
    pa = arrow()
    found = [parquet().read_table(path, partitioning=None) for path in parts]
    whole = pa.concat_tables([_schema(table, dtype).empty_table(), *found])
    durable.replace(target, _file(whole))


def _schema(table: str, dtype: str) -> Schema:
    pa = arrow()
    types = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64()}
    columns = COLUMNS | CHECKS if table == "telemetry" else _EVENTS
    fields = [pa.field(name, types[kind]) for name, kind in columns.items()]
    about = {"schema_version": str(SCHEMA_VERSION), "table": table, "dtype": dtype}
    return pa.schema(fields, about)


def _file(table: Table) -> bytes:
    sink = arrow().BufferOutputStream()
    parquet().write_table(table, sink, compression="zstd")
    data: bytes = sink.getvalue().to_pybytes()
    return data
