"""From a request to a job: typed options of sbatch, and what the job is told to run.

The script is a constant. Nothing that a request says stands in it or on a command line but typed
options; argv and environment of the payload lie in a private file that the job reads.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temporal_fabric import durable, python_runner
from temporal_fabric.adapters import slurm_on_node, slurm_on_node_container
from temporal_fabric.adapters.container_inside import call_of
from temporal_fabric.adapters.slurm_container import OWN_MIB, is_contained, plan_of
from temporal_fabric.requests.quantities import GIGABYTE

if TYPE_CHECKING:
    from temporal_fabric.adapters.contract import AttemptKey, AttemptSpec
    from temporal_fabric.adapters.slurm_options import SlurmOptions
    from temporal_fabric.requests.models import ExecutionRequest
    from temporal_fabric.requests.resources import Gpu

SCRIPT = """\
#!/bin/bash
# What a job of temporal-fabric is: PYTHON, the job's FOLDER, and a SETUP file of the site or ''.
# An array's folder has one for each element, by its index.
[ -n "$HOME" ] || export HOME=~
[ -z "$3" ] || . "$3"
exec "$1" -I "$2/job.py" "$2${SLURM_ARRAY_TASK_ID:+/$SLURM_ARRAY_TASK_ID}"
"""
"""The batch script of every job."""

_OF_ONE = ("job-name", "comment", "output", "chdir")
"""Options in which the jobs of an array differ from one another, were they alone."""

_MIB = 2**20
_OWN_MIB = 48
"""Memory of the job's own program, which the payload's limit does not count."""

_EARLY_S = 60
"""Slurm may send a signal so much earlier than it was told."""

_SLACK_S = 30


@dataclass(frozen=True, slots=True)
class Place:
    """Where an attempt lies on the cluster."""

    job: str
    folder: str

    @classmethod
    def of(cls, base: str, name: str, key: AttemptKey) -> Place:
        """Return the place of an attempt below the folder of all; its job's name is given."""
        runs = f"{base}/runs/{key.tenant}/{key.request_id}/{key.epoch}"
        return cls(f"{base}/jobs/{name}", runs)

    @property
    def checkpoints(self) -> str:
        """The checkpoints, shared by all epochs."""
        return f"{self.folder.rpartition('/')[0]}/checkpoints"


def memory_bytes(request: ExecutionRequest) -> int | None:
    """Return the memory of all processes of a node together, or None where nothing is said."""
    if request.limits.memory_bytes is not None:
        return request.limits.memory_bytes
    sizes = [r.size_gb for r in request.requirements.resources if r.type == "memory"]
    return int(sum(sizes) * GIGABYTE) if sizes else None


def cores(request: ExecutionRequest) -> float | None:
    """Return the cores of a node, or None where nothing is said."""
    if request.limits.cpus is not None:
        return request.limits.cpus
    return sum(r.cores for r in request.requirements.resources if r.type == "cpu") or None


def gang(request: ExecutionRequest) -> tuple[int, int]:
    """Return the number of nodes, and of members on each."""
    for resource in request.requirements.resources:
        if resource.type == "nodes":
            return (resource.count, resource.tasks_per_node)
    return (1, 1)


def job(
    attempt: AttemptSpec, name: str, place: Place, site: SlurmOptions, limit_s: float | None
) -> dict[str, Any]:
    """Return what `Queue.submit` is told; see `job_options` for the arguments."""
    return {
        "options": job_options(attempt, name, place, site, limit_s),
        "script": SCRIPT,
        "path": f"{place.job}/batch.sh",
        "args": [site.python, place.job, site.setup],
    }


def shape(job: dict[str, Any]) -> tuple[object, ...]:
    """Return what has to be equal for two jobs to be elements of one array."""
    options = {name: text for name, text in job["options"].items() if name not in _OF_ONE}
    python, _, setup = job["args"]
    return (job["script"], python, setup, *sorted(options.items()))


def array_job(job: dict[str, Any], name: str, base: str, count: int) -> dict[str, Any]:
    """Return what `Queue.submit` is told of many jobs like one of them, but for their indexes."""
    folder, (python, _, setup) = f"{base}/arrays/{name}", job["args"]
    own = {
        "job-name": name,
        "comment": f"temporal-fabric: {count} attempts",
        "output": f"{folder}/%a/slurm.log",
        "chdir": folder,
    }
    options = {**job["options"], **own}
    path = f"{folder}/batch.sh"
    return {**job, "options": options, "path": path, "args": [python, folder, setup]}


def job_options(
    attempt: AttemptSpec, name: str, place: Place, site: SlurmOptions, limit_s: float | None
) -> dict[str, str]:
    """Return the options of a job by sbatch's long names.

    Args:
        attempt: What is run.
        name: The job's name.
        place: Where it lies.
        site: The backend's options.
        limit_s: The longest time that the partition gives; None where it is not known.
    """
    request, lead_s = attempt.request, math.ceil(attempt.request.limits.grace_s) + _SLACK_S
    nodes, members = gang(request)
    found = {
        "job-name": name,
        "comment": f"temporal-fabric:{attempt.key}",
        "output": f"{place.job}/slurm.log",
        "open-mode": "append",
        "chdir": place.folder,
        "nodes": str(nodes),
        "ntasks-per-node": str(members),
        "signal": f"B:USR1@{lead_s + _EARLY_S}",
        "partition": site.partition,
        "account": site.account,
        "qos": site.qos,
    }
    if request.limits.wall_s is not None:
        # The job ends itself to the second; Slurm's own limit, in minutes, stands behind it.
        wanted = request.limits.wall_s + request.limits.grace_s + lead_s + 2 * _EARLY_S
        if limit_s is not None:
            wanted = min(wanted, max(limit_s, request.limits.wall_s))
        found["time"] = str(math.ceil(wanted / 60))
    if (memory := memory_bytes(request)) is not None:
        own = OWN_MIB if is_contained(request, site) else _OWN_MIB
        found["mem"] = f"{math.ceil(memory / _MIB) + own}M"
    if (cpus := cores(request)) is not None:
        found["cpus-per-task"] = str(math.ceil(cpus / members))
    return {option: value for option, value in (found | _more(request)).items() if value}


def _more(request: ExecutionRequest) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for resource in request.requirements.resources:
        if resource.type == "gpu" and resource.count:
            found.setdefault("gres", []).append(_gres(resource))
        elif resource.type == "license":
            found.setdefault("licenses", []).append(f"{resource.name}:{resource.count}")
        elif resource.type == "disk":
            found.setdefault("tmp", []).append(f"{math.ceil(resource.size_gb * 1000)}M")
    return {option: ",".join(values) for option, values in found.items()}


def _gres(gpu: Gpu) -> str:
    model = f":{gpu.model.lower().replace(' ', '_')}" if gpu.model else ""
    return f"gpu{model}:{gpu.count}"


def launch(attempt: AttemptSpec, place: Place, site: SlurmOptions) -> dict[str, Any]:
    """Return what the job reads: argv, environment and limits of the payload."""
    request = attempt.request
    members = gang(request)
    if is_contained(request, site):
        starter = [site.python, "-I", f"{place.job}/container.py", place.job]
        program: dict[str, Any] = {"starter": starter, "argv": [], "env": {}, "workdir": ""}
    else:
        program = _uncontained(attempt, place, site)
    return {
        "starter": program["starter"],
        "argv": program["argv"],
        "env": program["env"],
        "cwd": str(Path(place.folder, "task", program["workdir"])),
        "stdout": f"{place.folder}/stdout.log",
        "stderr": f"{place.folder}/stderr.log",
        "wall_s": request.limits.wall_s,
        "grace_s": request.limits.grace_s,
        "memory_bytes": memory_bytes(request) if members == (1, 1) else None,
        "open_files": request.limits.open_files,
        "output_bytes": request.limits.output_bytes,
        "gang": members != (1, 1),
    }


def job_files() -> dict[str, str]:
    """Return the small files that every job or array has beside it, by name."""
    return {"job.py": _source(slurm_on_node), "batch.sh": SCRIPT}


def _uncontained(attempt: AttemptSpec, place: Place, site: SlurmOptions) -> dict[str, Any]:
    """Return the program of a payload that runs on the node as it is."""
    process, python = attempt.request.payload.process, attempt.request.payload.python
    if process is not None:
        argv, own, workdir = list(process.command), process.env, process.workdir
    elif python is not None:
        argv = [site.python, "-s", f"{place.job}/runner.py", f"{place.job}/call.json"]
        own, workdir = python.env, python.workdir
    else:
        raise TypeError("the verdict admits containers where the site has a runtime only")
    if gang(attempt.request) != (1, 1):
        # One member that fails ends all of them.
        argv = ["srun", "--kill-on-bad-exit=1", "--export=ALL", *argv]
    moved = {name: _moved(value, attempt, place) for name, value in attempt.env.items()}
    env = {"PYTHONUNBUFFERED": "1"} | own | moved
    return {"starter": [], "argv": argv, "env": env, "workdir": workdir or ""}


def files(attempt: AttemptSpec, place: Place, site: SlurmOptions) -> dict[str, str]:
    """Return the small files of one attempt alone, by name."""
    found: dict[str, str] = {}
    contained, python = is_contained(attempt.request, site), attempt.request.payload.python
    if contained:
        plan = plan_of(attempt, place, site, memory_bytes(attempt.request))
        found["container.py"] = _source(slurm_on_node_container)
        found["container.json"] = json.dumps(plan)
    if python is not None:
        task = "/task" if contained else f"{place.folder}/task"
        found["runner.py"] = _source(python_runner)
        found["call.json"] = json.dumps(call_of(python, task))
    return found


def write_source(attempt: AttemptSpec) -> None:
    """Write a function's own lines into the task folder, which is carried to the cluster."""
    python = attempt.request.payload.python
    if python is not None and python.source:
        file = attempt.folder / "task" / python.entry_point.partition(":")[0]
        durable.replace(file, "".join(f"{line}\n" for line in python.source).encode())


def _moved(value: str, attempt: AttemptSpec, place: Place) -> str:
    """Return a variable with the cluster's path in place of the worker's."""
    for here, there in (
        (attempt.folder, place.folder),
        (attempt.checkpoints, place.checkpoints),
    ):
        if value == str(here) or value.startswith(f"{here}/"):
            return there + value.removeprefix(str(here))
    return value


def _source(module: Any) -> str:
    return Path(module.__file__).read_text(encoding="utf-8")
