"""What container runtimes of a site are told; no site is needed for it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from temporal_fabric.adapters.contract import AttemptKey, AttemptSpec
from temporal_fabric.adapters.slurm_batch import Place, files, job_files, job_options, launch
from temporal_fabric.adapters.slurm_container import registered
from temporal_fabric.adapters.slurm_options import check_options, read_options
from temporal_fabric.adapters.slurm_verdict import slurm_verdict
from temporal_fabric.requests.models import ExecutionRequest

if TYPE_CHECKING:
    from pathlib import Path

    from temporal_fabric.adapters.contract import Verdict

LOGIN = {"host": "login.example.org", "user": "ada", "agent": True}
SITE = {**LOGIN, "image_folder": "/site/images", "images": ["python:*", "sha256:" + "a" * 64]}
PLACE = Place("/home/ada/jobs/fab-1", "/home/ada/runs/t/r/1")


def _container(**more: Any) -> dict[str, Any]:
    own = {"image": "python:3.12-slim", "command": ["python3", "-c"], "args": ["--odd", "$(x)"]}
    return {"id": "c", "payload": {"container": own | more.pop("payload", {})}, **more}


def _attempt(folder: Path, body: dict[str, Any]) -> AttemptSpec:
    request = ExecutionRequest.from_mapping(body)
    return AttemptSpec(AttemptKey("t", "r", 1), request, folder, folder, 1)


def _plan(folder: Path, runtime: str, body: dict[str, Any], **options: Any) -> dict[str, Any]:
    site = read_options({**SITE, "runtime": runtime, **options}, "c")
    text = files(_attempt(folder, body), PLACE, site)["container.json"]
    found: dict[str, Any] = json.loads(text)
    return found


def test_podman_is_told_to_allow_little(tmp_path: Path) -> None:
    """The command line has the whole profile, and nothing of the payload before the image."""
    body = _container(limits={"memory_bytes": 2**30, "open_files": 64}, payload={"env": {"A": "b"}})
    run = _plan(tmp_path, "podman", body)["run"]
    image = run.index("docker.io/library/python:3.12-slim")

    assert run[image + 1 :] == ["--odd", "$(x)"]
    assert run[image - 1] == '--entrypoint=["python3", "-c"]'
    for part in (
        *("--network=none", "--cap-drop=all", "--security-opt=no-new-privileges", "--read-only"),
        *("--cgroups=disabled", "--pull=never", "--init", "--rm", "--http-proxy=false"),
        *("--ulimit=nofile=64:64", f"--shm-size={2**29}b", "--ulimit=core=0:0"),
        f"--volume={PLACE.folder}/input:/input:ro",
        f"--volume={PLACE.folder}/output:/output:rw",
        f"--env-file={PLACE.job}/variables",
        "--storage-opt=additionalimagestore=/site/images",
    ):
        assert part in run[:image]
    assert not [part for part in run if "A=b" in part or "nvidia" in part]


def test_podman_gets_a_network_devices_and_a_fetch_where_they_are_given(tmp_path: Path) -> None:
    """What a request asks for and the owner gives is the difference, and nothing else is."""
    least = _plan(tmp_path, "podman", _container())
    body = _container(
        payload={"network": "outbound"}, requirements={"resources": {"gpu": "A100:2"}}
    )
    more = _plan(tmp_path, "podman", body, network="host", pull=True)

    assert set(more["run"]) - set(least["run"]) == {"--network=host", "--device=nvidia.com/gpu=all"}
    assert set(least["run"]) - set(more["run"]) == {"--network=none"}
    assert least["fetch"] == []
    assert more["fetch"][-3:] == [
        "--root=/site/images",
        "pull",
        "docker.io/library/python:3.12-slim",
    ]


@pytest.mark.parametrize("runtime", ["apptainer", "singularity"])
def test_apptainer_is_told_to_allow_little(tmp_path: Path, runtime: str) -> None:
    """The flags are those that its manual documents; variables bear its prefix."""
    body = _container(payload={"env": {"A": "b\nc"}, "workdir": "below"})
    plan = _plan(tmp_path, runtime, body)

    assert plan["file"] == "/site/images/docker.io+library+python+3.12-slim.sif"
    assert (plan["env_prefix"], plan["env"]["A"]) == (f"{runtime.upper()}ENV_", "b\nc")
    assert plan["run"] == [
        *(runtime, "--silent", "exec", "--containall", "--cleanenv", "--no-eval", "--no-privs"),
        *("--no-home", "--no-mount=cwd,hostfs,bind-paths", "--net", "--network=none"),
        f"--bind={PLACE.folder}/input:/input:ro",
        f"--bind={PLACE.folder}/task:/task:rw",
        f"--bind={PLACE.folder}/output:/output:rw",
        f"--bind={PLACE.checkpoints}:/checkpoints:rw",
        f"--bind={PLACE.folder}/error.txt:/fabric/error.txt:rw",
        f"--bind={PLACE.folder}/telemetry.jsonl:/fabric/telemetry.jsonl:rw",
        *("--pwd=/task/below", plan["file"], "python3", "-c", "--odd", "$(x)"),
    ]


def test_apptainer_runs_what_an_image_runs_itself(tmp_path: Path) -> None:
    """Without a command the image's own is run, on GPUs if asked, from a registry if allowed."""
    body = _container(
        payload={"command": [], "args": ["x"]}, requirements={"resources": {"gpu": 1}}
    )
    run = _plan(tmp_path, "apptainer", body, pull=True)["run"]

    assert run[:3] == ["apptainer", "--silent", "run"]
    assert run[-3:] == ["--nv", "docker://docker.io/library/python:3.12-slim", "x"]


def test_the_script_and_the_options_say_nothing_of_a_container(tmp_path: Path) -> None:
    """Only the starter is a command line of the job; the rest lies in a private file."""
    attempt, site = (
        _attempt(tmp_path, _container()),
        read_options({**SITE, "runtime": "podman"}, "c"),
    )
    told = launch(attempt, PLACE, site)
    options = job_options(attempt, "fab-1", PLACE, site, None)

    assert told["starter"] == ["python3", "-I", f"{PLACE.job}/container.py", PLACE.job]
    assert (told["argv"], told["env"]) == ([], {})
    assert not [value for value in options.values() if "python:" in value]
    assert "python:" not in job_files()["batch.sh"]


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("python", "docker.io/library/python:latest"),
        ("team/solver:2", "docker.io/team/solver:2"),
        ("registry.example:5000/x", "registry.example:5000/x:latest"),
        ("localhost/x:1", "localhost/x:1"),
        ("python@sha256:ab", "docker.io/library/python@sha256:ab"),
    ],
)
def test_a_reference_means_what_it_means_to_docker(text: str, whole: str) -> None:
    """A name without a registry is one of Docker's own; one without a tag is the latest."""
    assert registered(text) == whole


def _verdict(body: dict[str, Any], **options: Any) -> Verdict:
    site = read_options({**SITE, "runtime": "podman", **options}, "c")
    return slurm_verdict(ExecutionRequest.from_mapping(body), {}, [], site)


def test_what_a_container_cannot_have_is_refused() -> None:
    """Images that are not listed, networks that nobody gives, members, and lines in variables."""
    digest = "sha256:" + "a" * 64
    assert _verdict(_container()).ok
    assert _verdict(_container(payload={"image": f"x@{digest}"})).ok
    assert _verdict(_container(payload={"network": "none"})).ok
    assert _verdict(_container(payload={"network": "outbound"}), network="host").ok
    for body, said in (
        (_container(payload={"image": "other"}), "may not run the image 'other' (E_IMAGE)"),
        (_container(payload={"network": "outbound"}), "no payload a network (E_ISOLATION)"),
        (_container(payload={"env": {"A": "b\nc"}}), "no variable of several lines"),
        (_container(limits={"pids": 9}), "limits.pids cannot be enforced"),
        (_container(requirements={"resources": {"nodes": 2}}), "not several members"),
    ):
        shortfalls = _verdict(body).shortfalls
        assert [said in shortfall.reason for shortfall in shortfalls] == [True]
        assert shortfalls[0].change


def test_without_a_runtime_a_container_is_refused() -> None:
    """The reason names the kinds that run there, the change the option that is missing."""
    site = read_options(LOGIN, "c")
    told = slurm_verdict(ExecutionRequest.from_mapping(_container()), {}, [], site)

    assert [shortfall.reason for shortfall in told.shortfalls] == [
        "runs 'process' and 'python' payloads, not 'container': no runtime is configured"
    ]
    assert "'runtime'" in told.shortfalls[0].change


def test_wrong_options_of_containers_are_told() -> None:
    """Each wrong option has its place; what is about containers needs a runtime."""
    wrong = {
        **LOGIN,
        "runtime": "docker",
        "images": "python",
        "mounts": ["/proc/self", "/a b"],
        "network": "bridge",
        "pull": 1,
        "image_folder": "images",
    }
    found = {(p.code, p.path.rpartition("/")[2]) for p in check_options(wrong, "c")}
    without = {(p.code, p.path.rpartition("/")[2]) for p in check_options(SITE, "c")}

    assert found == {
        ("E_RANGE", "runtime"),
        ("E_IMAGE", "images"),
        ("E_PATH", "mounts"),
        ("E_ISOLATION", "network"),
        ("E_TYPE", "pull"),
        ("E_MISSING", "image_folder"),
    }
    assert without == {("E_MISSING", "runtime")}
