"""`capsule diff`: what differs between two sealed runs, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from temporal_fabric.capsule.differing import Difference, differences
from temporal_fabric.store import open_objects
from tests.bodies import shell
from tests.store.conftest import in_bucket, objects
from tests.telemetry.sealed import seal

if TYPE_CHECKING:
    from pathlib import Path

    from temporal_fabric.store import Objects

__all__ = ["in_bucket", "objects"]


def test_request_result_and_files_are_compared(objects: Objects, tmp_path: Path) -> None:
    """A changed command, a failure, and an output that is new or has another content."""
    runs = tmp_path / "runs"
    left = {"output/same": "1", "output/other": "1", "output/gone": "x"}
    first = seal(objects, runs, left={1: left}, body=shell("fit --eta 1"), request_id="a")
    left = {"output/same": "1", "output/other": "2"}
    body = shell("fit --eta 2", tags=["x/y"])
    ended: dict[str, Any] = {"state": "FAILED", "reason": "EXIT_CODE", "exit_code": 3}
    second = seal(objects, runs, left={1: left}, body=body, request_id="b", **ended)

    found = {(one.what, one.path): (one.first, one.second) for one in differences(first, second)}

    command = "/payload/process/command/2"
    assert found[("request", command)] == ("fit --eta 1", "fit --eta 2")
    assert found[("request", "/tags/0")] == (None, "x/y")
    assert found[("result", "state")] == ("SUCCEEDED", "FAILED")
    assert found[("result", "exit_code")] == (0, 3)
    assert found[("file", "artifacts/gone")][1] is None
    assert {path for what, path in found if what == "file"} == {
        "artifacts/gone",
        "artifacts/other",
    }
    assert differences(first, first) == []


def test_on_the_command_line(tmp_path: Path) -> None:
    """A table and exit code 1, JSON with the same, 0 where nothing differs, 1 and why for none."""
    store, runs = open_objects(tmp_path.as_uri()), tmp_path / "runs"
    for name, script in (("a", "true"), ("b", "false"), ("c", "true")):
        seal(store, runs, left={1: {"output/x": "1"}}, body=shell(script), request_id=name)

    changed, same = _diff(tmp_path, "a", "b"), _diff(tmp_path, "a", "c")
    told = _diff(tmp_path, "a", "b", "-o", "json")
    missing = _diff(tmp_path, "a", "nothing")

    place = "/payload/process/command/2"
    assert changed.returncode == told.returncode == 1
    assert changed.stdout.split() == [
        *("what", "where", "a", "b", "request", place, "true", "false")
    ]
    assert [Difference(**row) for row in json.loads(told.stdout)] == [
        Difference("request", place, "true", "false")
    ]
    assert (same.returncode, same.stdout) == (0, "the same request, result, outputs and logs\n")
    assert "no sealed capsule" in missing.stderr


def _diff(home: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "temporal_fabric.cli", "capsule", "diff", *args],
        env=os.environ | {"FABRIC_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
