"""Making a capsule's two tables: all segments of all epochs, and all events with the timeline."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temporal_fabric.recorder import flow_runs, schema, segments
from temporal_fabric.recorder.arrow import Table, arrow, compute, parquet
from temporal_fabric.recorder.told import STATE, told

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from temporal_fabric.outcomes import ExperimentResult, Moment


_TOLD = ("backend", "message")
"""What is told of a state besides the columns it has of its own."""


def merge(
    folders: Mapping[int, Path], result: ExperimentResult, target: Path, run: Path | None = None
) -> dict[str, bytes | Path]:
    """Return ``telemetry.parquet`` and ``events.parquet``; a file is made only of many rows.

    Args:
        folders: The folder of each epoch.
        result: Has the states of the run, and its compensations.
        target: Where a table of many rows is written, again where it exists; made where needed.
        run: The folder of checkpoints. Where it is that of a certified flow, its rows with
            their own columns are the telemetry.

    Returns:
        For each table its content, or the path of a file with it.

    Raises:
        OSError: the disk is full.
    """
    pc = compute()
    said: list[dict[str, Any]] = [_state(moment) for moment in result.timeline]
    said += [_plain(event) for event in compensation_events(result)]
    wanted, sink = schema.telemetry(), _sink(folders, target)
    with parquet().ParquetWriter(sink, wanted, compression="zstd") as writer:
        for _, folder in sorted(folders.items()):
            for table in _segments(folder):
                valued = table.filter(pc.is_null(table["detail"])).drop_columns(["detail"])
                writer.write_table(valued.cast(wanted))
                said += _events(table.filter(pc.is_valid(table["detail"])).to_pylist())
    metrics: bytes | Path = sink if isinstance(sink, Path) else sink.getvalue().to_pybytes()
    if run is not None and flow_runs.is_run(run):
        said += flow_runs.events(run)
        metrics = _file(target)
        parquet().write_table(flow_runs.telemetry(run), metrics, compression="zstd")
    return {"telemetry.parquet": metrics, "events.parquet": _content(_story(said))}


def _sink(folders: Mapping[int, Path], target: Path) -> Any:
    """Return a path for what may not fit into memory, else a buffer: most payloads tell nothing."""
    some = any(segments.paths(folder) for folder in folders.values())
    return _file(target) if some else arrow().BufferOutputStream()


def _file(target: Path) -> Path:
    target.mkdir(parents=True, exist_ok=True)
    return target / "telemetry.parquet"


def _content(table: Table) -> bytes:
    sink = arrow().BufferOutputStream()
    parquet().write_table(table, sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _segments(folder: Path) -> Iterable[Table]:
    for _, path in segments.paths(folder):
        table = segments.read(path)
        if table is not None:
            yield table


def _state(moment: Moment) -> dict[str, Any]:
    fields = asdict(moment)
    return {
        "epoch": fields["epoch"],
        "time": fields["at"],
        "event": STATE,
        "state": str(fields["state"]),
        "reason": str(fields["reason"]) or None,
        "detail": json.dumps({name: fields[name] for name in _TOLD if fields[name]}),
    }


def compensation_events(result: ExperimentResult) -> list[dict[str, Any]]:
    """Return an event for each try of each compensation, in the order of the tries."""
    return [
        {
            "event": "compensation",
            "at": ended.ended_at,
            "epoch": ended.epoch,
            "detail": {"compensation": done.name, "ended": ended.reason or "ok"},
        }
        for done in result.compensations
        for ended in done.attempts
    ]


def _events(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [_plain(event) for event in map(told, rows)]


def _plain(event: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "epoch": event["epoch"],
        "time": event["at"],
        "event": event["event"],
        "state": None,
        "reason": None,
        "detail": json.dumps(event["detail"]),
    }


def _story(said: list[dict[str, Any]]) -> Table:
    """Return all events in the order of their times, numbered without a gap."""
    pa = arrow()
    for event in said:
        event["time"] = datetime.fromisoformat(event["time"])
    # The sort is stable: events of one millisecond keep the order they were written in.
    ordered = sorted(said, key=lambda event: event["time"])
    rows = [{"seq": number, **event} for number, event in enumerate(ordered, 1)]
    return pa.Table.from_pylist(rows, schema=schema.events())
