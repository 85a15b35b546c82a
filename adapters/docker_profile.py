"""The container of an attempt on a Docker engine: what it may use, and what it may not do."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temporal_fabric import durable, python_runner
from temporal_fabric.adapters.container_inside import (
    CALL,
    RUNNER,
    WRITTEN,
    call_of,
    program_of,
    variables,
)
from temporal_fabric.requests.quantities import GIGABYTE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from temporal_fabric.adapters.contract import AttemptSpec
    from temporal_fabric.adapters.docker_answers import About
    from temporal_fabric.adapters.docker_options import DockerOptions
    from temporal_fabric.requests.models import ExecutionRequest

LABEL = "temporal-fabric"

_PIDS = 4096
_PERIOD_US = 100_000
_TMP = "rw,nosuid,nodev,mode=1777"


def container_of(
    attempt: AttemptSpec, image: str, ticket: Path, options: DockerOptions, about: About
) -> dict[str, Any]:
    """Return the whole configuration of an attempt's container, as the engine takes it.

    Args:
        attempt: The attempt, whose folders exist.
        image: Id of the image, so that a name that is moved meanwhile changes nothing.
        ticket: Folder without which it cannot start.
        options: What the host's owner allows.
        about: The engine.

    Raises:
        OSError: the attempt's folder cannot be written.
    """
    request, program = attempt.request, program_of(attempt.request)
    _write_call(attempt)
    _own(attempt, options.user)
    env = variables(program, attempt.env)
    config: dict[str, Any] = {
        "Image": image,
        "Cmd": program.command,
        "Env": [f"{name}={value}" for name, value in env.items()],
        "User": options.user,
        "NetworkDisabled": not program.network,
        "StopSignal": "SIGTERM",
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true"],
            "ReadonlyRootfs": True,
            "Init": True,
            "NetworkMode": options.network if program.network else "none",
            "IpcMode": "private",
            "RestartPolicy": {"Name": "no"},
            "LogConfig": _LOG,
            "Mounts": [*_mounts(attempt, ticket, options)],
            **_limits(request, options, about),
        },
    }
    if program.entrypoint is not None:
        config["Entrypoint"] = program.entrypoint
    if program.workdir is not None:
        config["WorkingDir"] = program.workdir
    return config


def _write_call(attempt: AttemptSpec) -> None:
    """Write what a `python` payload reads into the attempt's folder."""
    python = attempt.request.payload.python
    if python is None:
        return
    if python.source:
        file = attempt.folder / "task" / python.entry_point.partition(":")[0]
        durable.replace(file, "".join(f"{line}\n" for line in python.source).encode())
        file.chmod(0o644)
    call = attempt.folder / "call.json"
    durable.replace(call, json.dumps(call_of(python, "/task")).encode())
    call.chmod(0o644)


_LOG = {
    "Type": "local",
    "Config": {"max-size": "1000g", "max-file": "1", "compress": "false"},
}
"""Bytes as they were written, unlike the default driver, and never rotated: the copy in the
attempt's folder goes on where it ended, which takes the output from its beginning."""


def cores_of(request: ExecutionRequest) -> float | None:
    """Return the cores a request is limited to, None where it says nothing."""
    wanted = (r.cores for r in request.requirements.resources if r.type == "cpu" and not r.at_least)
    return request.limits.cpus or next(wanted, None)


def memory_of(request: ExecutionRequest) -> int | None:
    """Return the bytes a request is limited to, None where it says nothing."""
    resources = request.requirements.resources
    wanted = (r.size_gb for r in resources if r.type == "memory" and not r.at_least)
    asked = request.limits.memory_bytes or round(next(wanted, 0.0) * GIGABYTE)
    return asked or None


def _limits(request: ExecutionRequest, options: DockerOptions, about: About) -> dict[str, Any]:
    memory = memory_of(request) or options.memory_bytes or about.memory_bytes
    cores = min(cores_of(request) or options.cpus or about.cores, about.cores)
    ulimits = [{"Name": "core", "Soft": 0, "Hard": 0}]
    if (files := request.limits.open_files) is not None:
        ulimits.append({"Name": "nofile", "Soft": files, "Hard": files})
    return {
        "Memory": memory,
        "MemorySwap": memory,  # the sum of both: no swap
        "CpuPeriod": _PERIOD_US,
        "CpuQuota": max(1000, round(cores * _PERIOD_US)),
        "PidsLimit": (request.limits.pids or _PIDS) + 1,  # the init process is ours
        "Ulimits": ulimits,
        "ShmSize": memory // 2,
        "Tmpfs": {"/tmp": f"{_TMP},size={memory // 2}"},  # noqa: S108 - its own
    }


def _mounts(attempt: AttemptSpec, ticket: Path, options: DockerOptions) -> Iterator[dict[str, Any]]:
    folder = attempt.folder
    yield _bind(ticket, "/fabric/ticket", read_only=True)
    yield _bind(folder / "input", "/input", read_only=True)
    for name in ("task", "output"):
        yield _bind(folder / name, f"/{name}")
    yield _bind(attempt.checkpoints, "/checkpoints")
    for name in WRITTEN:
        yield _bind(folder / name, f"/fabric/{name}")
    if attempt.request.payload.python is not None:
        yield _bind(folder / "call.json", CALL, read_only=True)
        yield _bind(Path(python_runner.__file__), RUNNER, read_only=True)
    for path in options.mounts:
        yield _bind(Path(path), path, read_only=True)


def _bind(source: Path, target: str, *, read_only: bool = False) -> dict[str, Any]:
    return {"Type": "bind", "Source": str(source), "Target": target, "ReadOnly": read_only}


def _own(attempt: AttemptSpec, user: str) -> None:
    """Give the payload's user what it reads and writes; nothing to do where it is the worker's."""
    for name in WRITTEN:
        (attempt.folder / name).touch(mode=0o600)
    uid, gid = (int(number) for number in user.split(":"))
    if (uid, gid) == (os.geteuid(), os.getegid()):
        return
    folders = [attempt.folder / name for name in ("input", "task", "output")]
    for top in (*folders, attempt.checkpoints):
        for at, _, files in os.walk(top):
            # Never through a link: an earlier attempt's payload may have left one.
            os.chown(at, uid, gid, follow_symlinks=False)
            for name in files:
                os.chown(Path(at, name), uid, gid, follow_symlinks=False)
    for name in WRITTEN:
        os.chown(attempt.folder / name, uid, gid, follow_symlinks=False)
