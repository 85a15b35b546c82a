"""Rows a second that become durable segments, beside pyarrow alone and MLflow.

Interleaved rounds, so that a busy machine slows every variant; medians are printed. MLflow
runs in an environment of its own, which uv makes from the package index; it times itself, so
its start does not count. Run it from the checkout:
``python benchmarks/bench_recorder.py [ROUNDS]``
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from uv import find_uv_bin

from temporal_fabric.recorder import segments
from temporal_fabric.recorder.lines import Row
from temporal_fabric.recorder.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = 250_000
"""Of one segment: the recorder seals no larger ones. A row is one value."""

LINES = 50_000
METRICS = 16
"""Of one line, where it has several."""

MLFLOW = "mlflow==3.17.2"
MLFLOW_VALUES = 20 * 992


class Variants:
    """What is measured: each method takes an empty folder and returns rows a second."""

    def __init__(self) -> None:
        self._rows = [
            Row(n, 1_700_000_000_000 + n, n, "loss", 1 / (n + 1), None) for n in range(ROWS)
        ]
        counted = np.arange(ROWS)
        times, values = counted + 1_700_000_000_000, 1 / (counted + 1)
        names = pa.repeat(pa.scalar("loss"), ROWS)
        self._columns: list[Any] = [counted, times, counted, names, values, pa.nulls(ROWS)]
        self._table = segments.from_columns(1, self._columns)

    def from_rows(self, folder: Path) -> float:
        """Seal Python rows."""
        return _timed(ROWS, lambda: self._seal(folder, segments.from_rows(1, self._rows)))

    def from_columns(self, folder: Path) -> float:
        """Seal numpy columns."""
        return _timed(ROWS, lambda: self._seal(folder, segments.from_columns(1, self._columns)))

    def pyarrow_alone(self, folder: Path) -> float:
        """Write the same table without fsync."""
        path = folder / "raw.parquet"
        return _timed(ROWS, lambda: pq.write_table(self._table, path, compression="zstd"))

    def from_lines_of_1(self, folder: Path) -> float:
        """Do all that a recorder does, with one number a line."""
        return self._from_lines(folder, ["loss"])

    def from_lines_of_16(self, folder: Path) -> float:
        """Do all that a recorder does, with 16 numbers a line."""
        return self._from_lines(folder, [f"m{n}" for n in range(METRICS)])

    def mlflow_batches_of_62_x_16(self, folder: Path) -> float:
        """Let MLflow log steps of 16 metrics to SQLite."""
        script = Path(__file__).with_name("mlflow_rows.py")
        environment = [find_uv_bin(), "run", "--quiet", "--no-project", "--with", MLFLOW]
        done = subprocess.run(
            [*environment, "python", str(script), str(folder), str(MLFLOW_VALUES)],
            capture_output=True,
            text=True,
            check=True,
        )
        return float(done.stdout.split()[-1])

    def _from_lines(self, folder: Path, names: list[str]) -> float:
        lines = LINES // len(names)
        told = [{"step": n, **dict.fromkeys(names, 1 / (n + 1))} for n in range(lines)]
        text = "".join(f"{json.dumps(line)}\n" for line in told)
        (folder / "telemetry.jsonl").write_text(text)
        return _timed(lines * len(names), Recorder(folder, 1).finish)

    def _seal(self, folder: Path, table: Any) -> None:
        segments.seal(folder, 1, table, segments.Cursor())


def _timed(rows: int, work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return rows / (time.perf_counter() - began)


def main(rounds: int) -> None:
    """Measure and print a table."""
    found = Variants()
    variants = [
        found.from_rows,
        found.from_columns,
        found.pyarrow_alone,
        found.from_lines_of_1,
        found.from_lines_of_16,
        found.mlflow_batches_of_62_x_16,
    ]
    speeds: dict[str, list[float]] = {work.__name__: [] for work in variants}
    for _ in range(rounds):
        for work in variants:
            with tempfile.TemporaryDirectory() as name:
                speeds[work.__name__].append(work(Path(name)))
    print("| variant | rows a second, median | least | most |\n|---|---|---|---|")
    for what, rates in speeds.items():
        median, least, most = statistics.median(rates), min(rates), max(rates)
        print(f"| {what.replace('_', ' ')} | {median:,.0f} | {least:,.0f} | {most:,.0f} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
