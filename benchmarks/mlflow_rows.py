"""Log metrics to MLflow's SQLite store and print values a second; `bench_recorder` runs it.

``python mlflow_rows.py FOLDER VALUES``, with an interpreter that has MLflow.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import mlflow
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

METRICS = 16
BATCH = 992
"""Values of one call: whole rows of 16 metrics, below MLflow's limit of 1000."""


def main(folder: Path, values: int) -> None:
    """Log values of 16 metrics, step by step and in batches, to a new store."""
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    client = MlflowClient()
    run = client.create_run(client.create_experiment("bench")).info.run_id
    metrics = [
        Metric(f"m{n % METRICS}", 1 / (n + 1), 1_700_000_000_000 + n, n // METRICS)
        for n in range(values)
    ]
    client.log_batch(run, metrics=metrics[:1])  # the store is set up by the first call
    began = time.perf_counter()
    for start in range(0, values, BATCH):
        client.log_batch(run, metrics=metrics[start : start + BATCH])
    print(values / (time.perf_counter() - began))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
