"""The tables of a run's capsule: telemetry and events, as Parquet."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from temporal_fabric import durable
from temporal_fabric.flows.telemetry import CHECKS, COLUMNS
from temporal_fabric.recorder.arrow import Schema, Table, arrow, parquet

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["SCHEMA_VERSION", "Stamp", "events", "gather", "merge", "telemetry"]

SCHEMA_VERSION = 3
"""Of both tables; the seed family's telemetry is version 3."""

_EVENTS = {"run_id": "string", "t_wall_ms": "float64", "event": "string", "payload": "string"}


class Stamp(NamedTuple):
    """Whose rows are written, and when: for the tables of an experiment."""

    epoch: int
    started_ms: float
    """When the run would have begun if it had never stood still, in Unix milliseconds."""


def telemetry(
    chunks: Sequence[dict[str, list[Any]]], dtype: str, stamp: Stamp | None = None
) -> bytes:
    """Return telemetry rows as a Parquet file; null where a column does not apply.

    Args:
        chunks: Rows by column.
        dtype: Of the flow.
        stamp: Adds the columns ``epoch`` and ``time``.
    """
    columns = {name: [row for one in chunks for row in one[name]] for name in COLUMNS | CHECKS}
    table = arrow().Table.from_pydict(columns, schema=_schema("telemetry", dtype))
    return _file(_stamped(table, stamp))


def events(rows: Sequence[dict[str, Any]], dtype: str, stamp: Stamp | None = None) -> bytes:
    """Return events as a Parquet file, their payloads as JSON; see `telemetry`."""
    plain = [
        row | {"payload": json.dumps(row["payload"], allow_nan=False, sort_keys=True)}
        for row in rows
    ]
    table = arrow().Table.from_pylist(plain, schema=_schema("events", dtype))
    return _file(_stamped(table, stamp))


def merge(table: str, parts: Sequence[Path], target: Path, dtype: str) -> None:
    """Write the rows of several files into one, durably, without their stamps."""
    wanted = _schema(table, dtype)
    found = [
        parquet().read_table(path, partitioning=None).select(wanted.names).cast(wanted)
        for path in parts
    ]
    durable.replace(target, _file(arrow().concat_tables([wanted.empty_table(), *found])))


def gather(parts: Sequence[Path], target: Path) -> None:
    """Write the rows of several files into one, durably, as they are."""
    found = [parquet().read_table(path, partitioning=None) for path in parts]
    durable.replace(target, _file(arrow().concat_tables(found)))


def _stamped(table: Table, stamp: Stamp | None) -> Table:
    if stamp is None:
        return table
    pa = arrow()
    times = [round(stamp.started_ms + at) for at in table["t_wall_ms"].to_pylist()]
    for name, column in (
        ("epoch", pa.array([stamp.epoch] * len(table), type=pa.int32())),
        ("time", pa.array(times, type=pa.timestamp("ms", tz="UTC"))),
    ):
        table = table.append_column(name, column)
    return table


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
