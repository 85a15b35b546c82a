"""The command lines of the container runtimes of Slurm sites.

Every function returns what differs from `NOTHING` in what `slurm_on_node_container` reads. What
they enforce alike: no privileges are gained and no capabilities kept, the root is read-only, no
variable of the host gets in, and the payload sees the attempt's folders and the owner's mounts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from temporal_fabric.adapters.container_inside import Program

NOTHING: Mapping[str, Any] = MappingProxyType(
    {
        "file": "",
        "state": "",
        "began": "",
        "id": "",
        "missing": [],
        "fetch": [],
        "lacks": "",
        "env_file": "",
        "env_prefix": "",
        "runtime_env": {},
        "beside": [],
    }
)
"""A runtime that needs nothing but its command line, ``run``."""

_STATE = "/dev/shm"  # noqa: S108 - its own
"""Where podman keeps all it knows of a container, on a file system of the container's own: a short
path, which podman needs, and the place of its locks, of which a user has some thousands."""

_PIDS = 4096
_TMP = "rw,nosuid,nodev,mode=1777"


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """What is run, and what it gets."""

    image: str
    """With its registry and its tag or digest."""

    folder: str
    """Where the site keeps its images."""

    pull: bool
    job: str
    """The job's folder, private to the user; the runtime's own files lie there."""

    program: Program
    binds: tuple[tuple[str, str, bool], ...]
    """Path on the node, path inside, and whether it is only read."""

    gpus: bool
    memory_bytes: int | None
    open_files: int | None


def podman(asked: Container) -> dict[str, Any]:
    """Return how podman starts a container; the site keeps its images in a store of podman's."""
    own = [
        *("podman", "--log-level=error", "--cgroup-manager=cgroupfs", "--events-backend=none"),
        *("--runtime=crun", f"--runtime-flag=root={_STATE}/crun"),
        *(f"--runroot={_STATE}/run", f"--tmpdir={_STATE}/libpod", "--storage-driver=overlay"),
        "--storage-opt=ignore_chown_errors=true",
    ]
    ours = [*own, f"--root={_STATE}/root", f"--storage-opt=additionalimagestore={asked.folder}"]
    return {
        "state": _STATE,
        "began": f"{_STATE}/pid",
        "id": f"{_STATE}/id",
        # As podman itself does for what it starts in a user namespace of its own.
        "runtime_env": {"XDG_RUNTIME_DIR": _STATE, "_CONTAINERS_USERNS_CONFIGURED": "done"},
        "env_file": f"{asked.job}/variables",
        "missing": [*ours, "image", "exists", asked.image],
        "fetch": [*own, f"--root={asked.folder}", "pull", asked.image] if asked.pull else [],
        "lacks": f"podman has no image {asked.image} in {asked.folder} (E_IMAGE): "
        "put it there as the option image_folder says, or set the option 'pull'",
        "run": [*ours, *_podman_run(asked), asked.image, *asked.program.command],
        "beside": ["crun", f"--root={_STATE}/crun", "exec"],
    }


def _podman_run(asked: Container) -> Iterator[str]:
    program = asked.program
    yield from ("run", "--rm", "--pull=never")
    yield from (f"--pidfile={_STATE}/pid", f"--cidfile={_STATE}/id")
    yield from ("--cgroups=disabled", "--log-driver=passthrough", "--init", "--no-healthcheck")
    yield from ("--cap-drop=all", "--security-opt=no-new-privileges", "--read-only")
    yield from ("--http-proxy=false", f"--env-file={asked.job}/variables")
    yield f"--network={'host' if program.network else 'none'}"
    yield from _podman_limits(asked)
    yield from (f"--volume={at}:{to}:{'ro' if ro else 'rw'}" for at, to, ro in asked.binds)
    if program.workdir:
        yield f"--workdir={program.workdir}"
    if asked.gpus:
        yield "--device=nvidia.com/gpu=all"
    if program.entrypoint is not None:
        yield f"--entrypoint={json.dumps(program.entrypoint)}"


def _podman_limits(asked: Container) -> Iterator[str]:
    size = "" if asked.memory_bytes is None else f",size={asked.memory_bytes // 2}"
    yield "--read-only-tmpfs=false"
    yield f"--tmpfs=/tmp:{_TMP}{size}"
    if asked.memory_bytes is not None:
        yield f"--shm-size={asked.memory_bytes // 2}b"
    yield f"--ulimit=nproc={_PIDS}:{_PIDS}"
    yield "--ulimit=core=0:0"
    if asked.open_files is not None:
        yield f"--ulimit=nofile={asked.open_files}:{asked.open_files}"


def apptainer(asked: Container, command: str = "apptainer") -> dict[str, Any]:
    """Return how apptainer starts a container: from the site's SIF file, or a registry's image."""
    program = asked.program
    file = "" if asked.pull else f"{asked.folder}/{file_name(asked.image)}.sif"
    binds = [f"--bind={at}:{to}:{'ro' if ro else 'rw'}" for at, to, ro in asked.binds]
    return {
        "file": file,
        # A value is handed on as it is, and is no variable of apptainer's own.
        "env_prefix": f"{command.upper()}ENV_",
        "run": [
            *(command, "--silent", "run" if program.entrypoint is None else "exec"),
            *("--containall", "--cleanenv", "--no-eval", "--no-privs"),
            *("--no-home", "--no-mount=cwd,hostfs,bind-paths"),
            *([] if program.network else ["--net", "--network=none"]),
            *binds,
            *([f"--pwd={program.workdir}"] if program.workdir else []),
            *(["--nv"] if asked.gpus else []),
            file or f"docker://{asked.image}",
            *(program.entrypoint or []),
            *program.command,
        ],
    }


def singularity(asked: Container) -> dict[str, Any]:
    """Return how singularity starts a container: as apptainer, which it became."""
    return apptainer(asked, "singularity")


def file_name(image: str) -> str:
    """Return what the file of an image is called, without its ending."""
    return image.translate(str.maketrans("/:@", "+++"))


RUNTIMES: Mapping[str, Callable[[Container], dict[str, Any]]] = MappingProxyType(
    {"podman": podman, "apptainer": apptainer, "singularity": singularity}
)
"""What a site can have, by the name of its command."""
