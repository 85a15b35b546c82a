"""One flow on several devices: cut arrays, the same verdicts, and its own bits again after a kill.

Every flow runs in a child process that takes the processor for four devices.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from temporal_fabric.errors import CapsuleError, RequestRejected
from temporal_fabric.flows import load_run_manifest
from temporal_fabric.flows.compiling import compile_flow
from temporal_fabric.flows.reading import read_spec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SPEC: dict[str, Any] = {
    "name": "cut",
    "data": {
        "truth": {"type": "normal", "shape": [64, 64], "seed": 3},
        "seen": {"type": "observed", "source": "truth", "operator": "blur", "noise": 0.05},
    },
    "operators": {"blur": {"type": "separable_convolution", "sigma": 0.7}},
    "state": {"x": {"shape": [64, 64], "initial": "seen"}},
    "terms": [
        {"type": "quadratic", "operator": "blur", "target": "seen"},
        {"type": "wavelet_l1", "wavelet": "db4", "levels": 2, "weight": 0.05},
    ],
    "flow": {"family": "accelerated"},
    "certification": {"profile": "convex"},
    "sample_every": 10,
}
BY_FFT = {"operators": {"blur": {"type": "fft_convolution", "sigma": 0.7}}}
BY_DUALS = {
    "terms": [SPEC["terms"][0], {"type": "tv", "weight": 0.1}],
    "flow": {"family": "primal_dual"},
}
ENDLESS = {
    "certification": {"profile": "convex", "tolerances": {"gap": 1e-300}},
    "budget": {"iterations": 800},
}

LOOK = """
import json, sys
import jax
from temporal_fabric.flows.chunk import advance
from temporal_fabric.flows.compiling import compile_flow
from temporal_fabric.flows.reading import read_spec
found = []
for devices in (1, 4):
    compiled = compile_flow(read_spec(json.loads(sys.argv[1]) | {"devices": devices}))
    chunk = advance(compiled, iterations=40, sample_every=40)
    named = jax.tree_util.tree_flatten_with_path((compiled.problem, chunk.carry))[0]
    large = {jax.tree_util.keystr(path): one for path, one in named if one.size >= 1024}
    whole = [name for name, one in large.items() if one.sharding.is_fully_replicated]
    parts = {len(one.sharding.device_set) for one in large.values()}
    found.append({"E": float(chunk.rows["E"][-1]), "whole": whole, "parts": sorted(parts)})
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Variables of a process with four devices."""
    return os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("jax")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "NO_COLOR": "1",
    }


def command(*arguments: str) -> list[str]:
    """Return a command of the group."""
    return [sys.executable, "-m", "temporal_fabric.cli", "flow", *arguments]


def answer(env: Mapping[str, str], *arguments: str) -> dict[str, Any]:
    """Return what a command says."""
    line = command(*arguments, "-o", "json")
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=env, timeout=300)
    assert done.returncode in {0, 100}, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def written(folder: Path, **changes: Any) -> str:
    """Return the file of a specification."""
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(SPEC | changes))
    return str(path)


def verdicts(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return the verdict of every certificate."""
    return [
        (stage, one["name"], one["verdict"])
        for stage, decision in found["certificates"].items()
        for one in decision["certificates"]
    ]


@pytest.mark.parametrize(
    "changes", [{}, BY_FFT, BY_DUALS], ids=["wavelets", "fft", "total-variation"]
)
def test_large_arrays_are_cut(four: Mapping[str, str], changes: dict[str, Any]) -> None:
    """No large array of the problem or of the carry lies whole anywhere; the energy is the same."""
    line = [sys.executable, "-c", LOOK, json.dumps(SPEC | changes)]
    done = subprocess.run(line, capture_output=True, text=True, check=True, env=four, timeout=300)
    one, cut = json.loads(done.stdout)
    assert (cut["whole"], cut["parts"]) == ([], [4])
    assert cut["E"] == pytest.approx(one["E"], rel=1e-12)


def test_the_same_verdicts(four: Mapping[str, str], tmp_path: Path) -> None:
    """A run on four devices says of itself what one on a single device says."""
    file = written(tmp_path)
    one = answer(four, "run", file, "--out", str(tmp_path / "one"))
    cut = answer(four, "run", file, "--devices", "all", "--out", str(tmp_path / "four"))
    assert cut["verdict"] == one["verdict"] == "GREEN(convex)"
    assert verdicts(cut) == verdicts(one)
    assert cut["iteration"] == one["iteration"]
    assert cut["energy"] == pytest.approx(one["energy"], rel=1e-10)
    told = [load_run_manifest(tmp_path / name)["devices"] for name in ("one", "four")]
    assert told == [1, 4]


def test_killed_and_resumed(four: Mapping[str, str], tmp_path: Path) -> None:
    """On as many devices the same bits; on fewer it is recorded, or refused where bits matter."""
    file = written(tmp_path, devices=4, **ENDLESS)
    whole = answer(four, "run", file, "--out", str(tmp_path / "whole"))
    out = tmp_path / "killed"
    line = command("run", file, "--out", str(out), "--deterministic")
    with subprocess.Popen(line, env=four, stderr=subprocess.DEVNULL) as child:
        while child.poll() is None and _number(out) < 2:
            time.sleep(0.001)
        child.send_signal(signal.SIGKILL)
    assert "sealed_at" not in load_run_manifest(out)
    shutil.copytree(out, tmp_path / "fewer")

    again = answer(four, "resume", str(out))
    refused = subprocess.run(
        command("resume", str(tmp_path / "fewer"), "--devices", "1"),
        capture_output=True,
        text=True,
        check=False,
        env=four,
        timeout=300,
    )
    _forget_deterministic(tmp_path / "fewer")
    fewer = answer(four, "resume", str(tmp_path / "fewer"), "--devices", "1")

    assert again["sha256"] == whole["sha256"]
    assert refused.returncode == 1
    assert "resume it with --devices 4" in refused.stderr
    assert fewer["iteration"] == whole["iteration"]
    assert fewer["energy"] == pytest.approx(whole["energy"], rel=1e-10)
    told = load_run_manifest(tmp_path / "fewer")
    assert told["devices"] == 1
    assert [(one["before"], one["now"]) for one in told["devices_changed"]] == [(4, 1)]


def test_what_cannot_be_cut() -> None:
    """Lint names each slot whose sides do not divide, and what to do; small slots are no matter."""
    state = {"x": {"shape": [50, 50]}, "y": {"shape": [3]}}
    terms = [{"type": "quadratic"}, {"type": "tikhonov", "variable": "y"}]
    with pytest.raises(RequestRejected) as caught:
        read_spec({"state": state, "terms": terms, "devices": 4})
    (problem,) = caught.value.problems
    assert (problem.code, problem.path) == ("E_FLOW", "/state/x/shape")
    assert "pad one to a multiple of 4" in problem.message


def test_more_devices_than_there_are() -> None:
    """A number that this machine does not have is refused before anything runs."""
    spec = read_spec(SPEC | {"devices": 32})
    with pytest.raises(RequestRejected, match=r"/devices: asks for 32, and JAX has \d+ here"):
        compile_flow(spec)


def _number(out: Path) -> int:
    try:
        return int(load_run_manifest(out).get("checkpoint", {}).get("number", 0))
    except CapsuleError:
        return 0


def _forget_deterministic(run: Path) -> None:
    kept = json.loads((run / "spec.json").read_text())
    del kept["spec"]["deterministic"]
    (run / "spec.json").write_text(json.dumps(kept))
