"""Whether a Slurm site could ever run a request: what it does not do, and what it does not have."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters import fitting
from temporal_fabric.adapters.contract import Shortfall, Verdict
from temporal_fabric.adapters.slurm_batch import cores, gang, memory_bytes
from temporal_fabric.adapters.slurm_container import is_contained, lacking
from temporal_fabric.requests.quantities import GIGABYTE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from temporal_fabric.adapters.slurm_options import SlurmOptions
    from temporal_fabric.requests.models import ExecutionRequest

_MIB = 2**20
_TIME = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)\Z")


@dataclass(frozen=True, slots=True)
class Partition:
    """What sinfo tells of one kind of node in a partition."""

    name: str
    default: bool
    up: bool
    limit_s: float | None
    nodes: int
    cpus: int
    memory_bytes: float
    gres: str


@dataclass(frozen=True, slots=True)
class Site:
    """What a site has told of itself."""

    base: str
    """The folder of this fabric's attempts there."""

    partitions: list[Partition]
    """Those in which its jobs can be."""

    largest_array: int
    """How many elements an array may have; 0 where there are none."""

    @classmethod
    def read(cls, told: Mapping[str, Any], partition: str) -> Site:
        """Read a greeting; raises `KeyError`, `TypeError` or `ValueError` where it is none."""
        found = of_partition(read_partitions(told["partitions"]), partition)
        return cls(str(told["base"]), found, int(told["array"]))

    @property
    def longest_s(self) -> float | None:
        """The longest time that a job may have; None where that is not known."""
        limits = [found.limit_s for found in self.partitions if found.limit_s is not None]
        return max(limits, default=None)


def read_partitions(told: Any) -> list[Partition]:
    """Read the partitions of the login node's greeting; a line that means nothing is left out."""
    found: list[Partition] = []
    for line in told:
        try:
            found.append(_partition(line))
        except (KeyError, ValueError, TypeError):
            continue
    return found


def _partition(line: Mapping[str, str]) -> Partition:
    number = {key: int(line[key].rstrip("+")) for key in ("nodes", "cpus", "memory_mb")}
    name = line["name"]
    return Partition(
        name=name.removesuffix("*"),
        default=name.endswith("*"),
        up=line["up"] == "up",
        limit_s=seconds(line["limit"]),
        nodes=number["nodes"],
        cpus=number["cpus"],
        memory_bytes=float(number["memory_mb"] * _MIB),
        gres=line["gres"],
    )


def seconds(text: str) -> float | None:
    """Read ``D-HH:MM:SS`` as Slurm prints it; None for no limit."""
    found = _TIME.match(text)
    if found is None:
        return None
    days, hours, minutes, rest = (int(part or 0) for part in found.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + rest)


def of_partition(partitions: list[Partition], name: str) -> list[Partition]:
    """Return the kinds of node a job could get, without a name those of the default partition."""
    if name:
        names = set(name.split(","))
        return [found for found in partitions if found.name in names]
    return [found for found in partitions if found.default]


def slurm_verdict(
    request: ExecutionRequest,
    labels: Mapping[str, Any],
    partitions: list[Partition],
    site: SlurmOptions,
) -> Verdict:
    """Compare a request with a site.

    Args:
        request: An admitted request.
        labels: The backend's labels, which the request's constraints name.
        partitions: Where its jobs run; empty where that is not known.
        site: The backend's options.
    """
    wrong = list(_kinds(request, site))
    contained = not wrong and is_contained(request, site)
    return Verdict.of(
        *(wrong or fitting.files(request)),
        *(_lacking_in_container(request, site) if contained else _lacking(request)),
        *_never(request),
        *fitting.settings(request),
        *_resources(request),
        *_room(request, partitions),
        *fitting.constraints(request, labels),
    )


def _kinds(request: ExecutionRequest, site: SlurmOptions) -> Iterator[Shortfall]:
    if request.payload.container is not None and not site.runtime:
        yield Shortfall(
            "runs 'process' and 'python' payloads, not 'container': no runtime is configured",
            "give /payload/process instead of /payload/container, or set the backend's option "
            "'runtime' where the cluster has podman or apptainer",
        )
    yield from fitting.kinds(request, "process", "python", "container")


def _lacking_in_container(request: ExecutionRequest, site: SlurmOptions) -> Iterator[Shortfall]:
    yield from lacking(request, site)
    if gang(request) != (1, 1):
        yield Shortfall(
            "runs one container in a job, not several members",
            "ask for one member under /requirements/resources, or give /payload/process",
        )


def _lacking(request: ExecutionRequest) -> Iterator[Shortfall]:
    program = request.payload.process or request.payload.python
    at = f"/payload/{request.kind}"
    if program is not None and program.isolation not in {None, "none"}:
        yield Shortfall(
            f"isolation {program.isolation!r} cannot be enforced: its nodes are the site's",
            f"drop {at}/isolation, or name another backend",
            "E_ISOLATION",
        )
    if program is not None and program.network == "none":
        yield Shortfall(
            "cannot keep a job off the cluster's network", f"drop {at}/network", "E_ISOLATION"
        )
    if request.environment is not None:
        yield Shortfall(
            "installs nothing on the cluster",
            "drop /environment; load what is needed with the backend's option 'setup'",
        )


def _never(request: ExecutionRequest) -> Iterator[Shortfall]:
    if request.secrets:
        yield Shortfall("hands no secrets to a cluster", "drop /secrets, or name another backend")
    for name in ("pids", "log_bytes"):
        if getattr(request.limits, name) is not None:
            yield Shortfall(
                f"limits.{name} cannot be enforced there", f"drop /limits/{name}", "E_ISOLATION"
            )


def _resources(request: ExecutionRequest) -> Iterator[Shortfall]:
    for place, resource in enumerate(request.requirements.resources):
        at = f"/requirements/resources/{place}"
        if resource.type == "device":
            yield Shortfall(f"has no device {resource.name!r}", f"drop {at}")
        if resource.type == "gpu" and resource.memory_gb is not None:
            yield Shortfall(
                "does not know the memory of its GPUs", f"drop {at}/memory_gb, or give the model"
            )


def _room(request: ExecutionRequest, partitions: list[Partition]) -> Iterator[Shortfall]:
    """Yield what no node of the partition has; Slurm itself has the last word."""
    up = [found for found in partitions if found.up]
    if not up:
        return
    wanted, (nodes, members) = cores(request), gang(request)
    if wanted is not None and math.ceil(wanted / members) * members > (
        most := max(found.cpus for found in up)
    ):
        yield Shortfall(
            f"needs {wanted:g} cores on a node, has {most}",
            f"ask for {most} cores under /requirements/resources",
        )
    memory = memory_bytes(request)
    if memory is not None and memory > (room := max(found.memory_bytes for found in up)):
        yield Shortfall(
            f"needs {memory / GIGABYTE:g} GB of memory on a node, has {room / GIGABYTE:.1f} GB",
            f"ask for {int(room / GIGABYTE)} GB under /requirements/resources",
        )
    if nodes > (there := sum(found.nodes for found in up)):
        yield Shortfall(f"needs {nodes} nodes, has {there}", f"ask for {there} nodes")
    gpus = [r for r in request.requirements.resources if r.type == "gpu" and r.count]
    if gpus and not any("gpu" in found.gres for found in up):
        yield Shortfall("has no GPUs in its partition", "drop the GPU, or name another backend")
    limits = [found.limit_s for found in up]
    wall_s, longest = request.limits.wall_s, max((s or math.inf for s in limits), default=math.inf)
    if wall_s is not None and wall_s > longest:
        yield Shortfall(
            f"needs {wall_s:g} s, the partition gives {longest:g} s",
            f"set /limits/wall_s to {longest:g}",
        )
