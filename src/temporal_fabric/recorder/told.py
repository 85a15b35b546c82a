"""Events as readers get them: of a running attempt from its segments, later from the capsule.

Both give the same records, so a reader that goes from one to the other can leave out what it
has had.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from temporal_fabric.clock import stamp
from temporal_fabric.recorder import segments
from temporal_fabric.recorder.arrow import Table, arrow, compute, parquet

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

STATE = "state"
"""The event of a state change; all others are told by the payload or the recorder."""


def told(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the event in a row of a segment.

    Returns:
        ``event`` (stage, event, dropped, rejected, truncated or recorder), ``at``,
        ``epoch``, and ``detail``, a table with the step where the payload gave one.
    """
    step = {} if row["step"] is None else {"step": row["step"]}
    return {
        "event": row["name"],
        "at": stamp(row["time"]),
        "epoch": row["epoch"],
        "detail": json.loads(row["detail"]) | step,
    }


def live_events(folder: Path, after: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield what an attempt has told so far, in the order it was written.

    Args:
        folder: The attempt's folder.
        after: Number of the last line already had; 0 for all.

    Yields:
        The number of the payload's line, and the event; one line may have two.
    """
    pc = compute()
    for table in _newer(folder, after):
        wanted = pc.and_(pc.is_valid(table["detail"]), pc.greater(table["seq"], after))
        for row in table.filter(wanted).to_pylist():
            yield row["seq"], told(row)


def sealed_events(table: bytes) -> list[dict[str, Any]]:
    """Return the events of a capsule, state changes left out, in their order.

    Args:
        table: The content of the capsule's ``events.parquet``.
    """
    rows: list[dict[str, Any]] = parquet().read_table(arrow().BufferReader(table)).to_pylist()
    return [
        {
            "event": row["event"],
            "at": stamp(row["time"]),
            "epoch": row["epoch"],
            "detail": json.loads(row["detail"]),
        }
        for row in rows
        if row["event"] != STATE
    ]


def _newer(folder: Path, after: int) -> list[Table]:
    """Return the segments that have lines behind ``after``; older ones are not opened."""
    found: list[Table] = []
    for _, path in reversed(segments.paths(folder)):
        table = segments.read(path)
        if table is None or not len(table):
            continue
        found.append(table)
        if table["seq"][0].as_py() <= after + 1:
            break
    return found[::-1]
