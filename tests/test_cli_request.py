"""Requests before they run: init, validate, schema, --set, clone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from temporal_fabric.cli.app import main
from temporal_fabric.config import Settings
from temporal_fabric.errors import RequestRejected
from temporal_fabric.overrides import apply_overrides
from tests.bodies import shell

if TYPE_CHECKING:
    from pathlib import Path

    from temporal_fabric.testing.environment import FabricEnvironment


def _run(*args: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main(list(args), hard_exit=False)
    return ended.value.code


def test_init_writes_what_validates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The commented files are accepted as they are, and never overwritten."""
    assert _run("init", str(tmp_path)) == 0
    assert _run("validate", str(tmp_path / "request.yaml")) == 0
    assert Settings.load(home=tmp_path / "home", env={}, cwd=tmp_path).backends[0].name == "local"
    capsys.readouterr()

    assert _run("init", str(tmp_path)) == 2
    assert "not overwritten" in capsys.readouterr().err


def test_schema_is_a_json_schema(capsys: pytest.CaptureFixture[str]) -> None:
    """`schema` prints a JSON Schema that names every payload kind."""
    assert _run("schema") == 0

    schema = json.loads(capsys.readouterr().out)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert {"process", "container", "lab"} <= set(schema["$defs"]["Payload"]["properties"])


def test_the_seeds_own_example_validates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The request that stands in the first specification is accepted, short forms included."""
    path = tmp_path / "seed.yaml"
    path.write_text(
        'id: "exec_req_123"\nprovenance_hash: "sha256:..."\npriority: 8\n'
        "requirements:\n"
        "  type: computation\n"
        "  resources:\n"
        "    - {type: cpu, cores: 16}\n"
        "    - {type: gpu, model: A100, count: 2}\n"
        "    - {type: memory, size_gb: 128}\n"
        "  constraints: [\"location == 'us-east-1'\", 'secure_enclave == true']\n"
        "payload:\n"
        "  container:\n"
        "    image: research/protein-folding:v1.2\n"
        '    command: ["python", "run.py", "--data", "/input/data.bin"]\n'
        "    inputs:\n"
        "      - {source_uri: s3://artifacts/dataset-1, mount_path: /input/data.bin}\n"
        "    outputs:\n"
        "      - {source_path: /output/r.json, target_uri: s3://artifacts/results/x}\n"
    )

    assert _run("validate", str(path), "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)["body"]["priority"] == 8


def test_set_changes_fields() -> None:
    """Paths are dotted, numbers name places, values are YAML, variables are text."""
    body: dict[str, Any] = {"payload": {"process": {"command": ["a", "b"]}}}
    settings = (
        "payload.process.command.1=c",
        "retry.max_attempts=3",
        "payload.process.env.SEED=8",
        "/tags=[x, y]",
        "name=",
    )

    changed = apply_overrides(body, settings)

    assert changed == {
        "payload": {"process": {"command": ["a", "c"], "env": {"SEED": "8"}}},
        "retry": {"max_attempts": 3},
        "tags": ["x", "y"],
        "name": None,
    }
    assert body == {"payload": {"process": {"command": ["a", "b"]}}}


def test_wrong_settings_are_all_reported() -> None:
    """Every --set that cannot be applied is a problem of its own."""
    settings = ("no-equals", "a.b=1", "list.7=1", "x=[", "=1")

    with pytest.raises(RequestRejected) as caught:
        apply_overrides({"a": 1, "list": [1]}, settings)

    assert len(caught.value.problems) == 5
    assert {problem.code for problem in caught.value.problems} == {"E_PARSE"}


def test_set_on_the_command_line(environment: FabricEnvironment, tmp_path: Path) -> None:
    """Submit --set runs the changed request, and a wrong value is refused with its path."""
    path = tmp_path / "r.json"
    path.write_text(json.dumps(shell('echo "$WORD"')))

    good = environment.cli("submit", "-f", str(path), "--set", "payload.process.env.WORD=hey")
    bad = environment.cli("submit", str(path), "--set", "priority=99")

    assert good.stdout.startswith("hey\n"), good.stderr
    assert bad.returncode == 2
    assert "/priority" in bad.stderr


def test_a_file_without_an_id_is_a_new_experiment_each_time(
    environment: FabricEnvironment, tmp_path: Path
) -> None:
    """Without an id in the body each submit makes one, from the file's name."""
    path = tmp_path / "My Study.yaml"
    path.write_text("payload: {process: {command: ['true']}}\n")

    first = json.loads(environment.cli("submit", str(path), "-o", "json").stdout)
    second = json.loads(environment.cli("submit", str(path), "-o", "json").stdout)

    assert first["id"].startswith("my-study-")
    assert first["id"] != second["id"]


def test_clone_is_a_new_experiment_with_changes(
    environment: FabricEnvironment, tmp_path: Path
) -> None:
    """Clone submits a copy under another id; the source stays what it was."""
    body = shell('echo "seed $SEED"', env={"SEED": "1"})
    path = tmp_path / "r.json"
    path.write_text(json.dumps(body))
    environment.cli("submit", "-f", str(path))

    done = environment.cli("clone", body["id"], "--set", "payload.process.env.SEED=2", "-f")

    assert done.stdout.startswith("seed 2\n"), done.stderr
    assert environment.cli("logs", body["id"]).stdout == "seed 1\n"


def test_retry_on_the_command_line(environment: FabricEnvironment, tmp_path: Path) -> None:
    """Retry runs a failed experiment again and refuses one that succeeded."""
    body = shell(f"test -e {tmp_path}/ready")
    path = tmp_path / "r.json"
    path.write_text(json.dumps(body))

    first = environment.cli("submit", "-f", str(path))
    (tmp_path / "ready").touch()
    second = environment.cli("retry", body["id"], "-f")
    third = environment.cli("retry", body["id"])

    assert [first.returncode, second.returncode, third.returncode] == [100, 0, 2]
    assert "E_CONFLICT" in third.stderr


def test_a_script_with_sbatch_lines_runs(environment: FabricEnvironment, tmp_path: Path) -> None:
    """A batch script is converted, and how it was mapped is said."""
    path = tmp_path / "job.sh"
    path.write_text(
        "#!/bin/sh\n#SBATCH --job-name=hello\n#SBATCH --time=00:01:00\n"
        "#SBATCH --cpus-per-task=1\necho from a script\n"
    )

    done = environment.cli("submit", "-f", str(path))

    assert done.stdout.startswith("from a script\n"), done.stderr
    assert "--time -> limits.wall_s" in done.stderr
