"""Certified runs: what they leave, how they end, and that they go on as if never stopped."""

from __future__ import annotations

import json
import math
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from temporal_fabric.capsule.manifest import MANIFEST
from temporal_fabric.capsule.reading import Capsule
from temporal_fabric.errors import CapsuleError, RequestRejected
from temporal_fabric.flows import (
    load_run,
    load_run_manifest,
    resume_certified,
    resume_run,
    run_certified,
)
from temporal_fabric.flows.commands import Advance
from temporal_fabric.flows.reading import read_spec
from temporal_fabric.flows.remedies import Settings
from temporal_fabric.flows.running import RunResult, Watch
from temporal_fabric.flows.session import Session
from temporal_fabric.flows.telemetry import COLUMNS
from tests.flow_bodies import SMALL

if TYPE_CHECKING:
    from pathlib import Path

    from temporal_fabric.flows.spec import FlowSpec


SPEC = SMALL


def small(**changes: Any) -> FlowSpec:
    """Return a flow that runs in a moment."""
    return read_spec(SPEC | changes)


def endless(**changes: Any) -> FlowSpec:
    """Return a flow that asks for a smaller gap than there is, and so uses all its iterations."""
    never = {"profile": "convex", "tolerances": {"gap": 1e-300}}
    return small(certification=never, budget={"iterations": 1500}, **changes)


@pytest.fixture(scope="module")
def green(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """Return a run that met its exit checks; its folder is only read."""
    return run_certified(small(), out=tmp_path_factory.mktemp("green") / "run")


def names(rows: list[dict[str, Any]]) -> list[str]:
    """Return the names of events."""
    return [row["event"] for row in rows]


def test_green(green: RunResult) -> None:
    """A flow that meets its exit checks succeeds and leaves a capsule that verifies."""
    assert (green.outcome, green.verdict) == ("SUCCEEDED", "GREEN(convex)")
    capsule = Capsule.open(green.folder)
    assert capsule.verify() == []
    paths = {entry.path for entry in capsule.manifest.files}
    assert {"telemetry.parquet", "events.parquet", "certificates.json", "logs/run.log"} <= paths
    assert {"artifacts/x.npy", "artifacts/summary.json", "spec.json"} <= paths
    manifest = load_run_manifest(green.folder)
    assert manifest["dtype"] == "float64"
    assert manifest["gates"]["profile"] == "convex"
    assert manifest["shapes"] == {"x": [64]}
    assert manifest["seeds"] == {"seed": 0}
    assert manifest["transforms"]["validation"][0]["verdict"] == "PASS"
    assert manifest["checkpoint"]["iteration"] == green.iteration
    events = load_run(green.folder)["events"].to_pylist()
    assert names(events)[0] == "RUN_STARTED"
    assert names(events)[-1] == "RUN_FINISHED"
    assert all(isinstance(json.loads(event["payload"]), dict) for event in events)


def test_telemetry(green: RunResult) -> None:
    """Telemetry has the seed's columns, a row a sample, null where nothing applies, never NaN."""
    table = load_run(green.folder)["telemetry"]
    assert table.column_names[: len(COLUMNS)] == list(COLUMNS)
    assert table.schema.metadata[b"schema_version"] == b"3"
    assert table.schema.metadata[b"dtype"] == b"float64"
    rows = table.to_pylist()
    assert [row["iter"] for row in rows] == list(range(10, green.iteration + 1, 10))
    for row in rows:
        assert not any(isinstance(x, float) and math.isnan(x) for x in row.values())
        assert row["run_id"] == "run"
        assert row["phase"] in {"AMBER", "GREEN"}
        assert row["lambda"] == 0.05
        assert row["gamma"] > 0
        assert row["invariant_drift_max"] is not None
        assert row["phi_residual"] is None
        assert row["level_active_max"] is None
    energies = [row["E"] for row in rows]
    assert energies[-1] < energies[0]


def test_missed_exit(tmp_path: Path) -> None:
    """GREEN with a missed exit check fails with CERT_FAIL, and its certificates say which."""
    result = run_certified(endless(), out=tmp_path / "run")
    assert (result.outcome, result.reason) == ("FAILED", "CERT_FAIL")
    assert result.verdict == "GREEN(convex)"
    assert result.decisions["exit"].failing == ("gap",)
    assert result.iteration == 1500


def test_red(tmp_path: Path) -> None:
    """A wide blur under the strict gate is RED before its first step, and nothing is claimed."""
    blur = {"blur": {"type": "separable_convolution", "sigma": 3.0}}
    spec = small(operators=blur, certification={"profile": "strict"})
    result = run_certified(spec, out=tmp_path / "run")
    assert (result.reason, result.verdict, result.iteration) == ("CERT_FAIL", "RED(strict)", 0)
    assert {"eta_dd", "gamma_low"} <= set(result.decisions["before"].failing)
    assert "SUCCEEDED" not in (tmp_path / "run" / MANIFEST).read_text()
    found = load_run(tmp_path / "run")
    assert found["telemetry"].num_rows == 0
    assert "CERT_FAIL" in names(found["events"].to_pylist())
    with pytest.raises(CapsuleError, match="no checkpoint"):
        resume_run(tmp_path / "run")


def test_lens_is_a_remedy(tmp_path: Path) -> None:
    """Dominance refused in Haar, which fits best, is found in db4, the next candidate."""
    squares = np.kron(np.arange(16.0).reshape(4, 4) % 5, np.ones((16, 16)))
    spec = small(
        data=SPEC["data"] | {"truth": {"type": "values", "values": squares.tolist()}},
        operators={"blur": {"type": "separable_convolution", "sigma": 0.4}},
        state={"x": {"shape": [64, 64], "initial": "truth"}},
        certification={"profile": "strict"},
        lens={"candidates": [{"type": "db4", "levels": 3}, {"type": "haar", "levels": 3}]},
    )
    result = run_certified(spec, out=tmp_path / "run")
    assert result.verdict == "GREEN(strict)"
    assert load_run_manifest(tmp_path / "run")["settings"]["lens"] == "db4"
    events = names(load_run(tmp_path / "run")["events"].to_pylist())
    assert events.index("CERT_FAIL") < events.index("CERT_PASS")


def session(spec: FlowSpec) -> Session:
    """Return a flow on its device, at its start."""
    return Session(spec, None, compiled=None, clock=lambda: 0.0, keep=lambda _rows: None)


@pytest.mark.parametrize("schedule", [None, {"mode": "residual_driven", "tau": 0.1}])
def test_lambda_reaches_the_step(schedule: dict[str, Any] | None) -> None:
    """A flow with lambda times 1.2 takes the steps of one that was specified so, scales too."""
    more = {} if schedule is None else {"multiscale": schedule}
    quadratic, rough = SPEC["terms"]
    tuned, written, plain = (
        session(small(**more)),
        session(small(terms=[quadratic, rough | {"weight": 0.05 * 1.2}], **more)),
        session(small(**more)),
    )
    tuned.answer(Advance(Settings(lambdas=(1.2,)), 30))
    written.answer(Advance(Settings(), 30))
    plain.answer(Advance(Settings(), 30))
    assert (tuned.carry.z["x"] == written.carry.z["x"]).all()
    assert not (tuned.carry.z["x"] == plain.carry.z["x"]).all()


def test_tuner(tmp_path: Path) -> None:
    """With a target of sparsity lambda is moved under guard, and every trial is in the record."""
    dial = {"target_sparsity": 0.8}
    spec = small(gap_dial=dial, budget={"iterations": 3000, "trials": 6})
    run_certified(spec, out=tmp_path / "run")
    found = load_run(tmp_path / "run")
    events = names(found["events"].to_pylist())
    assert 1 <= events.count("TUNER_MOVE_TRY") <= 6
    trials = {row["trial_id"] for row in found["telemetry"].to_pylist()} - {None}
    assert {"1", "1:baseline"} <= trials
    lambdas = {row["lambda"] for row in found["telemetry"].to_pylist()}
    assert any(math.isclose(one, 0.06) for one in lambdas)


def test_cancel(tmp_path: Path) -> None:
    """A run that is stopped ends CANCELED with a checkpoint of its last chunk."""
    watch = Watch(wants_stop=lambda: True)
    result = run_certified(small(), out=tmp_path / "run", watch=watch)
    assert result.outcome == "CANCELED"
    asked = iter([False, False, False, False, True])
    watch = Watch(wants_stop=lambda: next(asked, True))
    result = run_certified(endless(), out=tmp_path / "later", watch=watch)
    assert result.outcome == "CANCELED"
    found = resume_run(tmp_path / "later", dtype="float64")
    assert set(found) == {"state", "tuner_state", "phase", "iter", "rng_key"}
    assert (found["phase"], found["iter"]) == ("GREEN", result.iteration)
    assert (found["state"]["x"] == result.state["x"]).all()
    assert found["rng_key"].shape == (2,)


def test_redacted(tmp_path: Path) -> None:
    """A redacted run keeps statistics, and neither arrays nor checkpoints."""
    run_certified(small(), out=tmp_path / "run", redact_artifacts=True)
    assert not list((tmp_path / "run").rglob("*.npy"))
    assert not list((tmp_path / "run").rglob("*.ckpt"))
    summary = json.loads((tmp_path / "run" / "artifacts" / "summary.json").read_text())
    assert set(summary["statistics"]["x"]) == {"min", "max", "mean", "norm"}


def test_refusals_write_nothing(green: RunResult, tmp_path: Path) -> None:
    """A tolerance of no bound is refused with its path, and a folder in use is left alone."""
    wrong = small(certification={"profile": "convex", "tolerances": {"nonsense": 1.0}})
    with pytest.raises(RequestRejected, match="/certification"):
        run_certified(wrong, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    before = (green.folder / MANIFEST).read_bytes()
    with pytest.raises(CapsuleError, match="a run already"):
        run_certified(small(), out=green.folder)
    with pytest.raises(CapsuleError, match="is over"):
        resume_certified(green.folder)
    assert (green.folder / MANIFEST).read_bytes() == before


def test_other_version_or_dtype(green: RunResult, tmp_path: Path) -> None:
    """A run of another schema_version or dtype is refused before anything is restored."""
    with pytest.raises(CapsuleError, match="another dtype"):
        resume_run(green.folder, dtype="float32")
    shutil.copytree(green.folder, tmp_path / "run")
    path = tmp_path / "run" / MANIFEST
    path.write_text(path.read_text().replace("schema_version = 1", "schema_version = 2"))
    with pytest.raises(CapsuleError, match="found=2, known=1"):
        resume_run(tmp_path / "run")


CHILD = """
import json, sys
from pathlib import Path
import jax
jax.config.update("jax_disable_most_optimizations", True)
from temporal_fabric.flows.reading import read_spec
from temporal_fabric.flows.running import resume_certified, run_certified
out = Path(sys.argv[2])
if (out / "manifest.toml").exists():
    result = resume_certified(out)
else:
    result = run_certified(read_spec(json.loads(sys.argv[1])), out=out)
print(result.sha256)
"""


def test_killed_runs(tmp_path: Path) -> None:
    """Killed after any checkpoint and resumed, a run ends with the same bits and the same rows."""
    spec = endless(gap_dial={"target_sparsity": 0.8})
    whole = run_certified(spec, out=tmp_path / "whole")
    out = tmp_path / "killed"
    body = json.dumps(spec.model_dump(mode="json", exclude_defaults=True))
    for wanted in (2, 5):
        with subprocess.Popen([sys.executable, "-c", CHILD, body, str(out)]) as child:
            while child.poll() is None and _number(out) < wanted:
                time.sleep(0.001)
            child.send_signal(signal.SIGKILL)
    assert "sealed_at" not in load_run_manifest(out)
    again = resume_certified(out)
    assert again.sha256 == whole.sha256
    assert again.iteration == whole.iteration
    timeless = [_timeless(tmp_path / name) for name in ("whole", "killed")]
    assert timeless[0] == timeless[1]


def _number(out: Path) -> int:
    try:
        return int(load_run_manifest(out).get("checkpoint", {}).get("number", 0))
    except CapsuleError:
        return 0


def _timeless(path: Path) -> tuple[Any, Any]:
    found = load_run(path)
    drop = {"t_wall_ms", "run_id"}
    return tuple(  # type: ignore[return-value]
        [{k: v for k, v in row.items() if k not in drop} for row in found[name].to_pylist()]
        for name in ("telemetry", "events")
    )
