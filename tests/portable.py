"""The portable example on one backend: what comes back may not tell which one it was."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from temporal_fabric import Capsule

if TYPE_CHECKING:
    from temporal_fabric.testing.environment import FabricEnvironment

EXAMPLES = Path(__file__).parents[1] / "examples"
OUTPUTS = {"blocks.csv", "summary.json"}
PRIMES = b'{"limit": 1000000, "primes": 78498}'
"""The output of the container example, wherever it runs."""

ROWS = 100
"""Of telemetry."""

_OF_THE_RUN = "epoch, time"
"""Columns of telemetry that may differ."""


def make_input(folder: Path) -> Path:
    """Return the example's input of 50 MB, made by its own step."""
    path = folder / "measurements.bin"
    subprocess.run([sys.executable, EXAMPLES / "portable/make_input.py", path], check=True)
    return path


def run_on(
    backend: str, environment: FabricEnvironment, given: Path
) -> tuple[dict[str, str], list[tuple[Any, ...]]]:
    """Run the example; return the outputs' digests by path, and its rows of telemetry.

    Args:
        backend: Name of the backend it has to run on.
        environment: Where that is served.
        given: The input.
    """
    name = f"portable-{backend}"
    asked = ["--backend", backend, "--set", f"id={name}"]
    asked += ["--set", f"payload.process.inputs.0.source_uri={given.as_uri()}"]
    asked += ["--follow", "-o", "json"]
    done = environment.cli("submit", str(EXAMPLES / "portable.yaml"), *asked, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(environment.cli("result", name, "-o", "json").stdout)
    assert result["backend"].startswith(f"{backend}@")
    path = Capsule.open(result["capsule"]).folder / "telemetry.parquet"
    query = f"SELECT * EXCLUDE ({_OF_THE_RUN}) FROM '{path}' ORDER BY seq, name"  # noqa: S608 - ours
    rows = duckdb.connect().execute(query).fetchall()
    return {output["path"]: output["sha256"] for output in result["outputs"]}, rows
