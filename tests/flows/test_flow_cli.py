"""``temporal-fabric flow``: what a person sees, and the exit codes that a script sees."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.flow_bodies import SMALL as SPEC

if TYPE_CHECKING:
    from pathlib import Path


def flow(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the group."""
    command = [sys.executable, "-m", "temporal_fabric.cli", "flow", *arguments]
    environment = os.environ | {"COLUMNS": "140", "NO_COLOR": "1"}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=240
    )


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Return the file of a flow that runs in a moment."""
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(SPEC))
    return path


def test_run(small: Path, tmp_path: Path) -> None:
    """A run that meets its checks exits with 0 and shows both tables and the capsule."""
    done = flow("run", str(small), "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert "GREEN(convex)  certificates before the run" in done.stdout
    assert "GREEN(convex)  certificates of the result" in done.stdout
    assert "SUCCEEDED" in done.stdout
    assert str(tmp_path / "run") in done.stdout.replace("\n", "")
    assert "AMBER" in done.stderr
    over = flow("resume", str(tmp_path / "run"))
    assert over.returncode == 1
    assert "the run is over" in over.stderr


def test_lint_error(small: Path) -> None:
    """A lint error exits with 2 and names the place of every problem."""
    terms = [SPEC["terms"][0] | {"operator": "nothing"}, SPEC["terms"][1] | {"levels": 9}]
    small.write_text(yaml.safe_dump(SPEC | {"terms": terms}))
    for verb in ("lint", "certify", "run"):
        done = flow(verb, str(small))
        assert done.returncode == 2
        assert "/terms/0/operator" in done.stderr
        assert "/terms/1/levels" in done.stderr


def test_closed_gate(small: Path, tmp_path: Path) -> None:
    """A closed gate exits with 100: certify lists what fails, a run has the reason CERT_FAIL."""
    blur = {"blur": {"type": "separable_convolution", "sigma": 3.0}}
    spec = SPEC | {"operators": blur, "certification": {"profile": "strict"}}
    small.write_text(yaml.safe_dump(spec))
    done = flow("certify", str(small), "-o", "json")
    assert done.returncode == 100
    decision = json.loads(done.stdout)
    assert decision["verdict"] == "RED(strict)"
    assert {"eta_dd", "gamma_low"} <= set(decision["failing"])
    done = flow("run", str(small), "--out", str(tmp_path / "run"), "-o", "json")
    assert done.returncode == 100
    answer = json.loads(done.stdout)
    assert (answer["outcome"], answer["reason"]) == ("FAILED", "CERT_FAIL")
    assert answer["certificates"]["before"]["colour"] == "RED"


def test_lint_proposes(small: Path) -> None:
    """Lint says which profile is chosen and which is the strongest that can be proved."""
    done = flow("lint", str(small), "-o", "json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["profile"] == "convex"
    assert answer["provable"] == "strongly_convex"
