"""Rows a second that become durable segments, beside pyarrow alone. Run it from the checkout.

Interleaved rounds, so that a busy machine slows every variant; medians are printed.
``python benchmarks/bench_recorder.py [ROUNDS]``
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from temporal_fabric.recorder import segments
from temporal_fabric.recorder.lines import Row
from temporal_fabric.recorder.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = 250_000
"""Of one segment: the recorder seals no larger ones."""

LINES = 50_000


def _rows() -> list[Row]:
    return [Row(n, 1_700_000_000_000 + n, n, "loss", 1 / (n + 1), None) for n in range(ROWS)]


def main(rounds: int) -> None:
    """Measure and print a table."""
    rows = _rows()
    counted = np.arange(ROWS)
    values = 1 / (counted + 1)
    names = pa.repeat(pa.scalar("loss"), ROWS)
    columns = [counted, counted + 1_700_000_000_000, counted, names, values, pa.nulls(ROWS)]
    table = segments.from_columns(1, columns)
    text = "".join(json.dumps({"step": n, "loss": 1 / (n + 1)}) + "\n" for n in range(LINES))

    def from_rows(folder: Path) -> int:
        segments.seal(folder, 1, segments.from_rows(1, rows), segments.Cursor())
        return ROWS

    def from_columns(folder: Path) -> int:
        segments.seal(folder, 1, segments.from_columns(1, columns), segments.Cursor())
        return ROWS

    def pyarrow_alone(folder: Path) -> int:
        pq.write_table(table, folder / "raw.parquet", compression="zstd")
        return ROWS

    def from_lines(folder: Path) -> int:
        Recorder(folder, 1).finish()
        return LINES

    variants: list[Callable[[Path], int]] = [from_rows, from_columns, pyarrow_alone, from_lines]
    speeds: dict[str, list[float]] = {work.__name__: [] for work in variants}
    for _ in range(rounds):
        for work in variants:
            with tempfile.TemporaryDirectory() as name:
                (Path(name) / "telemetry.jsonl").write_text(text)
                began = time.perf_counter()
                done = work(Path(name))
                speeds[work.__name__].append(done / (time.perf_counter() - began))
    print("| variant | rows a second, median | least | most |\n|---|---|---|---|")
    for what, found in speeds.items():
        median, least, most = statistics.median(found), min(found), max(found)
        print(f"| {what.replace('_', ' ')} | {median:,.0f} | {least:,.0f} | {most:,.0f} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
