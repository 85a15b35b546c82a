"""What a Slurm backend is told, and what it makes of a request; no site is needed for it."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from temporal_fabric.adapters import slurm_login, slurm_on_node_container
from temporal_fabric.adapters.contract import AttemptKey, AttemptSpec, Phase
from temporal_fabric.adapters.slurm_batch import Place, array_job, job, job_options, shape
from temporal_fabric.adapters.slurm_options import check_options, read_options
from temporal_fabric.adapters.slurm_rest_forms import submission
from temporal_fabric.adapters.slurm_states import ENDS, read_seen, status_of
from temporal_fabric.adapters.slurm_verdict import of_partition, read_partitions, seconds
from temporal_fabric.adapters.ssh_target import Target, read_target
from temporal_fabric.errors import BackendUnknown
from temporal_fabric.requests.models import ExecutionRequest
from temporal_fabric.states import Reason
from tests.bodies import process

LOGIN = {"host": "login.example.org", "user": "ada", "agent": True}


@pytest.mark.parametrize("module", [*slurm_login.PROGRAM, slurm_on_node_container])
def test_what_runs_on_a_cluster_is_python_3_8(module: Any) -> None:
    """The programs for login and compute nodes have no syntax that Python 3.8 lacks."""
    ast.parse(Path(module.__file__).read_text(), feature_version=(3, 8))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("login.example.org", Target("ada", "login.example.org")),
        ("eve@gate:2222", Target("eve", "gate", 2222)),
        ("eve@[2001:db8::1]:22", Target("eve", "2001:db8::1")),
        ("2001:db8::1", Target("ada", "2001:db8::1")),
    ],
)
def test_an_ssh_target_is_read(text: str, wanted: Target) -> None:
    """User, host and port stand where OpenSSH has them."""
    assert read_target(text, user="ada") == wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-oProxyCommand=x",
        "a b",
        "x@-y",
        "x@y:z",
        "x@y:0",
        "x@y:70000",
        "x;y@z",
        "x@y`z`",
        "x@y/z",
        "$(x)@y",
        "x@y\n",
        "x@.",
        "x@y..z",
        "x@%h",
        7,
        "@y",
        "x@[::1",
        "x@[::1]z",
    ],
)
def test_what_is_no_ssh_target_is_refused(text: object) -> None:
    """Nothing that a program on the way could read as an option or a command is a target."""
    with pytest.raises(ValueError, match="SSH target"):
        read_target(text, user="ada")


def test_every_wrong_option_is_told_with_its_place(tmp_path: Path) -> None:
    """All problems come at once, each with code, place and what it has to be."""
    wrong = {
        "port": "22",
        "user": 7,
        "key": str(tmp_path / "none"),
        "host_key": "ssh-ed25519",
        "folder": "../out",
        "setup": "a b",
        "qos": "-x",
        "agent": "yes",
        "sessions": 99,
        "array_min": -1,
        "array_wait_s": 0,
        "jump": 3,
        "extra": 1,
    }

    found = {
        (p.code, p.path.removeprefix("/backends/c/options/")) for p in check_options(wrong, "c")
    }

    assert found == {
        ("E_SSH_TARGET", "port"),
        ("E_TYPE", "user"),
        ("E_MISSING", "host"),
        ("E_PATH", "key"),
        ("E_HOSTKEY", "host_key"),
        ("E_PATH", "folder"),
        ("E_PATH", "setup"),
        ("E_SLURM_FIELD", "qos"),
        ("E_TYPE", "agent"),
        ("E_RANGE", "sessions"),
        ("E_RANGE", "array_min"),
        ("E_RANGE", "array_wait_s"),
        ("E_TYPE", "jump"),
        ("E_UNKNOWN_FIELD", "extra"),
    }
    assert check_options(LOGIN, "c") == []


def _options_of(tmp_path: Path, limit_s: float | None = None, **more: Any) -> dict[str, str]:
    request = ExecutionRequest.from_mapping({**process("a"), **more})
    attempt = AttemptSpec(AttemptKey("t", "r", 3), request, tmp_path, tmp_path, 1)
    site = read_options({**LOGIN, "partition": "batch", "account": "lab"}, "c")
    return job_options(attempt, "fab-1", Place("/j", "/f/3"), site, limit_s)


def test_what_a_request_needs_becomes_typed_options(tmp_path: Path) -> None:
    """Cores, memory, devices, nodes, licences, scratch and time become options of sbatch."""
    resources = {"cpu": 3.5, "memory": "2GB", "gpu": "A100:2", "nodes": 2, "disk": "1GB"}
    found = _options_of(
        tmp_path,
        requirements={"resources": resources},
        limits={"wall_s": 3600, "grace_s": 20},
    )

    wanted = {
        "comment": "temporal-fabric:t@r@3",
        "partition": "batch",
        "account": "lab",
        "nodes": "2",
        "gres": "gpu:a100:2",
        "cpus-per-task": "4",
        "mem": "1956M",
        "tmp": "1000M",
        "time": "64",
        "signal": "B:USR1@110",
    }
    assert wanted.items() <= found.items()
    assert _options_of(tmp_path, 3600, limits={"wall_s": 3600})["time"] == "60"
    assert "time" not in _options_of(tmp_path)


def test_a_job_has_the_words_of_its_interface(tmp_path: Path) -> None:
    """Every typed option has a field in each version, in the form that this version wants."""
    resources = {"gpu": "A100:2", "memory": "1GB", "disk": "1GB"}
    options = _options_of(tmp_path, requirements={"resources": resources}, limits={"wall_s": 600})

    old = submission("v0.0.38", options, "#!", {"A": "b"})
    new = submission("v0.0.42", options, "#!", {"A": "b"})["job"]

    assert old["script"] == new["script"] == "#!"
    assert (old["job"]["nodes"], new["nodes"]) == (1, "1")
    assert (old["job"]["gres"], new["tres_per_node"]) == ("gpu:a100:2", "gres/gpu:a100:2")
    assert (old["job"]["time_limit"], new["time_limit"]["number"]) == (13, 13)
    assert (old["job"]["environment"], new["environment"]) == ({"A": "b"}, ["A=b"])
    assert (old["job"]["no_requeue"], new["requeue"]) == (True, False)
    assert "kill_warning_signal" not in old["job"]
    assert (new["kill_warning_signal"], new["kill_warning_flags"]) == ("USR1", ["BATCH_JOB"])
    assert new["kill_warning_delay"]["number"] == 100


def test_jobs_that_differ_in_themselves_alone_have_one_shape(tmp_path: Path) -> None:
    """Name, log and folder are each attempt's own; cores, time and setup make another shape."""
    site = read_options({**LOGIN}, "c")

    def told(name: str, site: Any = site, **more: Any) -> dict[str, Any]:
        request = ExecutionRequest.from_mapping({**process(name), **more})
        attempt = AttemptSpec(AttemptKey("t", name, 1), request, tmp_path, tmp_path, 1)
        return job(attempt, f"fab-{name}", Place.of("/b", f"fab-{name}", attempt.key), site, None)

    one, two = told("a"), told("b")
    several = array_job(one, "fab-a-1", "/b", 2)

    assert shape(one) == shape(two) == shape(several)
    assert one["options"] != two["options"]
    assert shape(told("a", limits={"wall_s": 60})) != shape(one)
    assert shape(told("a", read_options({**LOGIN, "setup": "env.sh"}, "c"))) != shape(one)
    assert several["options"]["output"] == "/b/arrays/fab-a-1/%a/slurm.log"


def test_every_state_of_slurm_has_one_meaning() -> None:
    """A job that left no word is as Slurm says; none of its states is a success."""
    told = {"why": "", "exit_code": None, "signal": None}
    for native, (reason, _) in ENDS.items():
        seen = {"claim": "job.1.0", "id": "1", "exit": {**told, "native": native}}
        status = status_of(read_seen(seen))
        assert status.reason == reason
        assert status.phase is (Phase.LOST if reason == Reason.LOST else Phase.ENDED)
    unheard = status_of(read_seen({"claim": "", "id": "1", "exit": {**told, "native": "NEW"}}))
    assert unheard.reason == Reason.LOST


def test_a_kill_for_memory_is_told_by_its_text() -> None:
    """Where Slurm polls memory the job is FAILED; what it wrote to the job's log tells OOM."""
    told = {"why": "", "exit_code": None, "signal": 9, "native": "FAILED", "memory": True}
    told["words"] = "slurmstepd: error: Exceeded job memory limit"
    status = status_of(read_seen({"claim": "job.1.0", "id": "1", "exit": told}))
    assert status.reason == Reason.OOM
    assert "Exceeded job memory limit" in status.message


@pytest.mark.parametrize(
    "told",
    [None, [], {}, {"claim": 1, "id": "", "exit": None}, {"trouble": "down"}, {"known": False}],
    ids=json.dumps,
)
def test_a_look_of_another_shape_is_unknown(told: Any) -> None:
    """What is no answer is not believed in part."""
    with pytest.raises(BackendUnknown):
        read_seen(told)


def test_partitions_are_read() -> None:
    """Limits of time in every form, the default partition, and lines that mean nothing."""
    row = {"up": "up", "limit": "1-02:03:04", "nodes": "4", "cpus": "64+", "gres": "gpu:a100:4"}
    rows = [{**row, "name": "batch*", "memory_mb": "1000+"}, {**row, "name": "long"}]
    found = read_partitions([*rows, {"name": "x"}, {**row, "name": "y", "memory_mb": "?"}])
    assert [part.name for part in found] == ["batch"]
    assert found[0].limit_s == 26 * 3600 + 184
    assert of_partition(found, "") == found
    assert of_partition(found, "gpu") == []
    assert (seconds("infinite"), seconds("30:00")) == (None, 1800)
