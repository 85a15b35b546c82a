"""The tables of a certified flow's run folder, as those of its experiment's capsule.

A run writes its rows and events as small segments, one for each step. From time to time all of
them become one, named after the last: until the others are removed they are not looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from temporal_fabric.clock import stamp
from temporal_fabric.recorder.arrow import Table, arrow, parquet
from temporal_fabric.shapes import is_table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SEGMENTS = "segments"
WHOLE = "-all"
"""At the end of the name of a segment that holds all earlier ones."""

_PLACED = ("epoch", "seq", "time")


def parts(run: Path, table: str) -> list[Path]:
    """Return the segments of a table in their order, each row in one of them."""
    found = sorted((run / SEGMENTS).glob(f"{table}-*.parquet"), key=_order)
    for place in range(len(found) - 1, -1, -1):
        if found[place].stem.endswith(WHOLE):
            return found[place:]
    return found


def number_of(segment: Path) -> int:
    """Return the number of the last step that a segment holds."""
    return int(segment.stem.split("-")[1])


def is_run(folder: Path) -> bool:
    """Say whether a folder of checkpoints is that of a flow's run."""
    return (folder / SEGMENTS).is_dir()


def is_redacted(body: Mapping[str, Any]) -> bool:
    """Say whether a request keeps none of its flow's data in the capsule."""
    payload: Any = body["payload"].get("flow")
    return is_table(payload) and payload.get("redact_artifacts") is True


def holds_data(name: str) -> bool:
    """Say whether a file of a run holds data, and not only figures.

    Args:
        name: Relative to the run's folder.
    """
    return name.startswith(("checkpoints/", "data/"))


def telemetry(run: Path) -> Table:
    """Return the rows of a run, numbered, each with epoch and time."""
    pa = arrow()
    found = pa.concat_tables([_read(path) for path in parts(run, "telemetry")])
    rows = pa.array(range(1, len(found) + 1), type=pa.int64())
    found = found.append_column("seq", rows)
    names: list[str] = found.column_names
    return found.select([*_PLACED, *(name for name in names if name not in _PLACED)])


def events(run: Path) -> list[dict[str, Any]]:
    """Return the events of a run as those of a capsule."""
    return [
        {
            "epoch": row["epoch"],
            "time": stamp(row["time"]),
            "event": row["event"],
            "state": None,
            "reason": None,
            "detail": row["payload"],
        }
        for path in parts(run, "events")
        for row in _read(path).to_pylist()
    ]


def _read(path: Path) -> Table:
    table: Table = parquet().read_table(path, partitioning=None)
    return table


def _order(path: Path) -> tuple[int, bool]:
    return (number_of(path), path.stem.endswith(WHOLE))
