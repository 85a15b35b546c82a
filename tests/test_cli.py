"""The command line, as a person and as a script use it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.bodies import shell

if TYPE_CHECKING:
    from pathlib import Path

    from temporal_fabric.testing.environment import FabricEnvironment


def _file(folder: Path, body: dict[str, Any]) -> str:
    path = folder / f"{body['id']}.json"
    path.write_text(json.dumps(body))
    return str(path)


def test_submit_follow_shows_states_and_output(
    environment: FabricEnvironment, tmp_path: Path
) -> None:
    """States go to stderr, the payload's output to stdout, the exit code is 0."""
    body = shell("echo line one; sleep 0.5; echo line two")

    done = environment.cli("submit", "--follow", _file(tmp_path, body))

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("line one\nline two\nSUCCEEDED")
    order = ["QUEUED", "PREPARING", "RUNNING", "COLLECTING", "SUCCEEDED"]
    assert [
        word for line in done.stderr.splitlines() for word in line.split() if word in order
    ] == order


def test_submit_a_command_runs_here(environment: FabricEnvironment, tmp_path: Path) -> None:
    """What stands after -- runs in the current folder."""
    (tmp_path / "data").write_text("42\n")

    done = subprocess.run(
        [sys.executable, "-m", "temporal_fabric.cli", "submit", "-f", "--", "cat", "data"],
        cwd=tmp_path,
        env=environment.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.stdout.startswith("42\n"), done.stderr


def test_failure_has_its_exit_code_and_says_why(
    environment: FabricEnvironment, tmp_path: Path
) -> None:
    """A failed experiment ends with 100, the reason and the end of stderr."""
    body = shell("echo broken pipe fitting >&2; exit 7")

    followed = environment.cli("submit", "--follow", _file(tmp_path, body))
    waited = environment.cli("wait", body["id"])
    result = environment.cli("result", body["id"], "-o", "json")

    assert [followed.returncode, waited.returncode, result.returncode] == [100, 100, 100]
    assert "EXIT_CODE" in followed.stderr
    assert "broken pipe fitting" in followed.stderr
    assert json.loads(result.stdout)["exit_code"] == 7


def test_json_is_stable_and_alone_on_stdout(environment: FabricEnvironment, tmp_path: Path) -> None:
    """Every command's -o json is one JSON value with the documented keys."""
    body = shell("true", name="json")
    submitted = environment.cli("-o", "json", "submit", _file(tmp_path, body))
    environment.cli("wait", body["id"])
    status = json.loads(environment.cli("status", body["id"], "-o", "json").stdout)
    listed = json.loads(environment.cli("list", "-o", "json").stdout)
    result = json.loads(environment.cli("result", body["id"], "-o", "json").stdout)

    assert json.loads(submitted.stdout) == {
        "id": body["id"],
        "tenant": "default",
        "workflow_id": f"experiment/default/{body['id']}",
    }
    assert (status["state"], status["request_id"]) == ("SUCCEEDED", body["id"])
    assert status["sources"] == ["describe", "query", "record"]
    assert body["id"] in {entry["request_id"] for entry in listed}
    assert result["state"] == "SUCCEEDED"
    assert result["capsule"].startswith("file:///")


def test_refusal_lists_every_problem(environment: FabricEnvironment, tmp_path: Path) -> None:
    """A bad body ends with 2 and all problems, as text and as JSON; nothing is started."""
    path = tmp_path / "bad.yaml"
    path.write_text("id: bad\npriority: 99\npayload: {process: {command: []}}\nnope: 1\n")

    text = environment.cli("submit", str(path))
    data = environment.cli("submit", str(path), "-o", "json")
    listed = environment.cli("status", "bad")

    codes = {problem["code"] for problem in json.loads(data.stdout)["problems"]}
    assert (text.returncode, data.returncode, listed.returncode) == (2, 2, 102)
    assert codes >= {"E_RANGE", "E_UNKNOWN_FIELD", "E_COMMAND"}
    assert all(code in text.stderr for code in codes)


def test_wait_can_give_up(environment: FabricEnvironment, tmp_path: Path) -> None:
    """Wait --timeout ends with 101 while it runs, cancel --wait with 103."""
    body = shell("sleep 60", limits={"grace_s": 1})
    environment.cli("submit", _file(tmp_path, body))

    waited = environment.cli("wait", body["id"], "--timeout", "1")
    early = environment.cli("result", body["id"])
    cancelled = environment.cli("cancel", body["id"], "--wait")

    assert (waited.returncode, early.returncode) == (101, 101)
    assert cancelled.returncode == 103
    assert "CANCELED" in cancelled.stdout


def test_prefix_and_last(environment: FabricEnvironment, tmp_path: Path) -> None:
    """An experiment is found by a unique prefix and by `last`."""
    body = shell("echo found me")
    environment.cli("submit", _file(tmp_path, body))
    environment.cli("wait", "last")

    assert environment.cli("logs", body["id"][:-2]).stdout == "found me\n"
    assert environment.cli("logs", "last").stdout == "found me\n"
    assert environment.cli("status", "t-").returncode == 102


def test_logs_of_stderr_and_follow(environment: FabricEnvironment, tmp_path: Path) -> None:
    """Logs -f ends with the experiment and shows what was written meanwhile."""
    body = shell("for i in 1 2 3; do echo $i; echo e$i >&2; sleep 0.3; done")
    environment.cli("submit", _file(tmp_path, body))

    followed = environment.cli("logs", "-f", body["id"])
    errors = environment.cli("logs", "--stderr", body["id"])

    assert followed.stdout == "1\n2\n3\n"
    assert errors.stdout == "e1\ne2\ne3\n"


def test_unknown_experiment_is_102(environment: FabricEnvironment) -> None:
    """Every command says the same of what is not there."""
    for command in ("status", "wait", "result", "logs", "events", "cancel"):
        done = environment.cli(command, "no-such-thing")

        assert done.returncode == 102, command
        assert "no such experiment" in done.stderr


def test_doctor_finds_all_well(environment: FabricEnvironment) -> None:
    """With server and worker there, every check is ok."""
    done = environment.cli("doctor", "-o", "json")

    checks = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout
    assert {check["verdict"] for check in checks} <= {"ok", "warn"}
    assert {"server", "search attributes", "fabric", "fabric.pool.default"} <= {
        check["name"] for check in checks
    }


def test_without_a_server_it_says_how_to_get_one(tmp_path: Path) -> None:
    """No server is exit code 69 and names both remedies."""
    env = {"PATH": "/usr/bin:/bin", "FABRIC_HOME": str(tmp_path)}
    for command in (["list"], ["status", "x"], ["worker"]):
        done = subprocess.run(
            [sys.executable, "-m", "temporal_fabric.cli", *command],
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

        assert done.returncode == 69, done.stderr
        assert "temporal-fabric dev" in done.stderr
        assert "TEMPORAL_ADDRESS" in done.stderr


@pytest.mark.parametrize(
    "args",
    [["submit"], ["submit", "a", "--", "b"], ["submit", "/no/such"], ["nonsense"], ["list", "-z"]],
)
def test_wrong_usage_is_2(args: list[str]) -> None:
    """A mistake on the command line is exit code 2 and shows the usage."""
    done = subprocess.run(
        [sys.executable, "-m", "temporal_fabric.cli", *args],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 2
    assert "Usage" in done.stderr


def test_flags_of_the_temporal_command_are_accepted(environment: FabricEnvironment) -> None:
    """`temporal fabric ...` puts its root flags in front; they do no harm."""
    done = environment.cli("--output", "json", "--color", "never", "--log-level", "warn", "list")

    assert done.returncode == 0, done.stderr
    assert isinstance(json.loads(done.stdout), list)


def test_temporal_finds_the_extension(environment: FabricEnvironment) -> None:
    """The command is reached as `temporal fabric`, with its exit code."""
    assert environment.server is not None
    env = environment.env | {"PATH": f"{sys.prefix}/bin:/usr/bin:/bin"}

    done = subprocess.run(
        [str(environment.server.cli), "fabric", "status", "no-such-thing"],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 102
    assert "no such experiment" in done.stderr
