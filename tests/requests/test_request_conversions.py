"""Tasks and batch scripts become requests, with a report of how."""

from __future__ import annotations

import copy
import json
from contextlib import suppress
from typing import Any

import pytest

from temporal_fabric.errors import RequestRejected
from temporal_fabric.requests import admit, convert
from temporal_fabric.requests.payloads import Input, Output
from temporal_fabric.requests.resources import Cpu, Gpu, Memory, Nodes
from tests.requests.examples import PROCESS, SCRIPT, TASK
from tests.requests.test_request_codes import rejected


def _task(**execution: Any) -> dict[str, Any]:
    task = copy.deepcopy(TASK)
    task["payload"]["execution"].update(execution)
    return task


def _script(*options: str, first: str = "#!/bin/sh") -> str:
    return "\n".join([first, *(f"#SBATCH {option}" for option in options), "true", ""])


def test_task_becomes_a_process() -> None:
    """A task without an image runs as a process, with its resources and files."""
    admission = admit(TASK)
    request = admission.request
    process = request.payload.process

    assert (request.id, request.tenant, request.request_class) == (
        "embed-context-1a2b",
        "acme",
        "cpu_short",
    )
    assert request.context == {"workflow_id": "wf-7", "context": {"stage": "embed"}}
    assert request.limits.wall_s == 1800
    assert request.requirements.resources == (
        Cpu(type="cpu", cores=0.5),
        Memory(type="memory", size_gb=0.536870912),
        Gpu(type="gpu", count=1, model="A100", memory_gb=40),
    )
    assert process is not None
    assert process.command == ("python", "-m", "embed", "--module", "context")
    assert process.inputs == (
        Input(source_uri="file:///data/in", mount_path="/in"),
        Input(source_uri="s3://data/words.txt", mount_path="words"),
    )
    assert process.outputs == (Output(source_path="result.json", name="result", type="json"),)


def test_task_with_an_image_becomes_a_container() -> None:
    """The entry point and the command of an image keep their two places."""
    request = admit(_task(image="a/b:1", entrypoint="run", container_workdir="/w")).request
    container = request.payload.container

    assert container is not None
    assert (container.command, container.workdir) == (("run",), "/w")
    assert container.args == ("python", "-m", "embed", "--module", "context")


def test_entry_point_precedes_the_command() -> None:
    """Without an image the two become one command line, in either order of the file."""
    first = admit(_task(entrypoint=["env"])).request.payload.process

    assert first is not None
    assert first.command[:2] == ("env", "python")


def test_task_is_the_same_from_text() -> None:
    """A task file converts as the mapping does, and converting twice changes nothing."""
    from_text = convert(json.dumps(TASK))

    assert from_text.digest == admit(TASK).digest
    assert admit(from_text.request.to_body()).digest == from_text.digest
    assert not admit(from_text.request.to_body()).notes


def test_task_report() -> None:
    """Every field of the task that has a value is accounted for."""
    notes = admit(TASK).notes

    assert "payload.execution.timeout_seconds -> limits.wall_s" in notes
    assert any(
        note.startswith("payload.execution.working_dir -> FABRIC_TASK_DIR") for note in notes
    )
    assert any(note.startswith("payload.artifacts.outputs.0 -> ") for note in notes)


def test_problems_name_the_place_in_the_task() -> None:
    """A fault is reported where the user wrote it, with the line."""
    text = json.dumps(_task(command=["a", 5], env={"A-B": "1"}, timeout_seconds=-1), indent=1)

    found = {(p.code, p.path): p.line for p in rejected(text)}

    assert ("E_TYPE", "/payload/execution/command") in found
    assert ("E_ENV", "/payload/execution/env") in found
    assert found["E_RANGE", "/payload/execution/timeout_seconds"] == next(
        number for number, line in enumerate(text.splitlines(), 1) if "timeout_seconds" in line
    )


@pytest.mark.parametrize(
    ("task", "code", "path"),
    [
        (
            _task(mounts=[{"host_path": "/a", "mount_path": "/b", "read_only": False}]),
            "E_ISOLATION",
            "/payload/execution/mounts/0",
        ),
        (_task(mounts=[{"host_path": "/a"}]), "E_MISSING", "/payload/execution/mounts/0"),
        (_task(mounts={"host_path": "/a"}), "E_TYPE", "/payload/execution/mounts"),
        (
            _task(mounts=[{"host_path": "/../a", "mount_path": "/b", "read_only": True}]),
            "E_PATH",
            "/payload/execution/mounts/0",
        ),
        (
            _task(resources={"cpu_millicores": -1}),
            "E_TYPE",
            "/payload/execution/resources/cpu_millicores",
        ),
        (_task(resources={"gpus": 1}), "E_UNKNOWN_FIELD", "/payload/execution/resources/gpus"),
        (_task(resources=[]), "E_TYPE", "/payload/execution/resources"),
        (_task(command="python x.py"), "E_TYPE", "/payload/execution/command"),
        (_task(command=None), "E_MISSING", "/payload/execution"),
        ({**TASK, "id": "../x"}, "E_NAME", "/id"),
        ({**TASK, "payload": {**TASK["payload"], "tenant": "../x"}}, "E_NAME", "/payload/tenant"),
        (
            {**TASK, "payload": {**TASK["payload"], "artifacts": {"outputs": [{"path": 1}]}}},
            "E_MISSING",
            "/payload/artifacts/outputs/0",
        ),
        (
            {
                **TASK,
                "payload": {
                    **TASK["payload"],
                    "artifacts": {"outputs": [{"path": "a", "type": "x"}]},
                },
            },
            "E_OUTPUT_KIND",
            "/payload/artifacts/outputs/0",
        ),
    ],
)
def test_tasks_that_cannot_be_mapped(task: dict[str, Any], code: str, path: str) -> None:
    """What has no equivalent is refused at its place."""
    assert (code, path) in {(p.code, p.path) for p in rejected(task)}


def test_script_becomes_a_process() -> None:
    """The options of a script become resources per node, limits and a name."""
    request = convert(SCRIPT).request
    process = request.payload.process

    assert request.name == "train_small"
    assert request.id.startswith("train_small-")
    assert request.requirements.resources == (
        Nodes(type="nodes", count=2, tasks_per_node=4),
        Cpu(type="cpu", cores=32),
        Gpu(type="gpu", model="a100", count=4),
        Memory(type="memory", size_gb=32 * 2**30 / 1e9),
    )
    assert request.requirements.constraints == ("partition == 'long'",)
    assert request.limits.wall_s == 5400
    assert process is not None
    assert process.command == ("/bin/bash", "-c", SCRIPT, "train_small")


def test_script_report() -> None:
    """Defaults, options left out and options that Slurm ignores are all reported."""
    notes = "\n".join(convert(SCRIPT).notes)

    assert "line 3: ${NODES:-2} -> its default '2'" in notes
    assert "line 8: --output -> left out" in notes
    assert "line 12 -> left out: Slurm stops reading" in notes
    assert "line 7: --partition -> requirements.constraints" in notes


def test_script_identity() -> None:
    """The same script is the same request; the workflow id gives it another name."""
    assert convert(SCRIPT).request.id == convert(SCRIPT.encode()).request.id
    assert convert(SCRIPT).request.id != convert(SCRIPT + "\n").request.id
    assert admit(SCRIPT, workflow_id="experiment/t/mine").request.id == "mine"


@pytest.mark.parametrize(
    ("options", "body"),
    [
        (["-n 8", "-N 2", "-c 2"], {"nodes": (2, 4), "cpu": 8}),
        (["--ntasks=3"], {"nodes": (1, 3), "cpu": 3}),
        (["-c4", "--mem-per-cpu=2G"], {"cpu": 4, "memory": 8 * 2**30}),
        (["--mem=500"], {"memory": 500 * 2**20}),
        (["--gres=gpu:2"], {"gpu": (None, 2)}),
        (["--gres=gpu"], {"gpu": (None, 1)}),
        (["--gres=gpu:h100"], {"gpu": ("h100", 1)}),
        (["--gres=gpu:h100:4"], {"gpu": ("h100", 4)}),
        (["-G 8", "-N 2"], {"nodes": (2, 1), "gpu": (None, 4)}),
        (
            ["--gpus-per-task=1", "--ntasks-per-node=4", "--mem-per-gpu=1G"],
            {"nodes": (1, 4), "cpu": 4, "gpu": (None, 4), "memory": 4 * 2**30},
        ),
        (["-N 1-4", "--mem=1G", "--mem=2G"], {"memory": 2 * 2**30}),
    ],
)
def test_script_resources(options: list[str], body: dict[str, Any]) -> None:
    """Counts by task, by node and in all come to the same amounts per node."""
    found: dict[str, Any] = {}
    for row in convert(_script(*options)).request.requirements.resources:
        match row:
            case Nodes():
                found["nodes"] = (row.count, row.tasks_per_node)
            case Cpu():
                found["cpu"] = row.cores
            case Gpu():
                found["gpu"] = (row.model, row.count)
            case Memory():
                found["memory"] = round(row.size_gb * 1e9)
            case _:
                pytest.fail(str(row))

    assert found == body


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("90", 5400),
        ("90:30", 5430),
        ("01:30:00", 5400),
        ("2-12", 216_000),
        ("2-12:30", 217_800),
        ("1-00:00:30", 86_430),
        ("UNLIMITED", None),
        ("0", None),
    ],
)
def test_script_times(time: str, seconds: float | None) -> None:
    """Times are read as sbatch reads them."""
    assert convert(_script(f"--time={time}")).request.limits.wall_s == seconds


def test_other_script_options() -> None:
    """Variables, directory, requeue, signal and site words find their place."""
    admission = convert(
        _script(
            "--export=ALL,A=1,B=x",
            "-D work",
            "--requeue",
            "--signal=B:USR1@120",
            "-A acct",
            "-q long",
        )
    )
    request = admission.request
    process = request.payload.process

    assert process is not None
    assert process.env == {"A": "1", "B": "x"}
    assert process.workdir == "work"
    assert request.retry.on is not None
    assert set(request.retry.on) == {"LOST", "PREEMPTED"}
    assert request.limits.grace_s == 120
    assert request.context == {"slurm": {"account": "acct", "qos": "long"}}
    assert any("ALL is the submitting shell's" in note for note in admission.notes)


@pytest.mark.parametrize(
    ("shebang", "start"),
    [
        ("#!/bin/bash -l", ("/bin/bash", "-l", "-c")),
        ("#!/usr/bin/env bash", ("bash", "-c")),
        ("#!/usr/bin/env python3", ("python3", "-c")),
        ("#!/opt/py/bin/python3.12", ("/opt/py/bin/python3.12", "-c")),
    ],
)
def test_interpreters(shebang: str, start: tuple[str, ...]) -> None:
    """Shells and Python run the script they are given as text."""
    process = convert(_script("-N 1", first=shebang)).request.payload.process

    assert process is not None
    assert process.command[: len(start)] == start


def test_script_without_an_interpreter_runs_in_sh() -> None:
    """Option lines alone make a script too."""
    process = convert("#SBATCH -N 1\ntrue\n").request.payload.process

    assert process is not None
    assert process.command[0] == "/bin/sh"


@pytest.mark.parametrize(
    "option",
    [
        "--array=1-10",
        "--dependency=afterok:1",
        "--begin=now+1hour",
        "-H",
        "-w node1",
        "-C haswell",
        "--mem=lots",
        "--time=soon",
        "--time=-5",
        "--nodes=0",
        "--gres=fpga:1",
        "-p bad'name",
        "--memm=1G",
        "--signal=nonsense",
        "stray",
        '-J "open',
        "-N ${NODES}",
        "-J " + "x" * 5000,
    ],
)
def test_options_that_are_refused(option: str) -> None:
    """What would change what runs, and has no equivalent, is refused with its line."""
    problems = rejected(_script("-N 1", option))

    assert [(p.code, p.line) for p in problems] == [("E_SLURM_FIELD", 3)]


def test_other_interpreters_are_refused() -> None:
    """A script in another language is refused rather than fed to a shell."""
    assert rejected(_script("-N 1", first="#!/usr/bin/perl"))[0].code == "E_SLURM_FIELD"
    assert rejected(_script("-N 1", first="#!"))[0].code == "E_SLURM_FIELD"


def test_long_scripts_are_refused() -> None:
    """A script beyond the string limit belongs into a file."""
    assert rejected(_script("-N 1") + "#" * 20_000)[0].code == "E_TOO_LARGE"


@pytest.mark.parametrize("value", ["$(touch x)", "`touch x`", "; touch x", "' || true || '", "a\\"])
def test_script_options_are_data(value: str) -> None:
    """Metacharacters in options stay values or are refused; none becomes an expression."""
    for option in (f"--partition={value}", f"--job-name={value!r}", f"--account={value!r}"):
        with suppress(RequestRejected):
            assert convert(_script(option)).request.requirements.constraints == ()


def test_a_request_needs_no_conversion() -> None:
    """Asking to convert a plain request is refused."""
    with pytest.raises(RequestRejected):
        convert(json.dumps(PROCESS))
