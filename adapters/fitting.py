"""What adapters check in a request alike: its files, its settings, its resources, its constraints.

Every function yields one shortfall for each thing that speaks against a backend; nothing that a
backend does not enforce or do is quietly left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from temporal_fabric.adapters.contract import Shortfall
from temporal_fabric.requests.constraints import check_constraint
from temporal_fabric.requests.quantities import GIGABYTE
from temporal_fabric.workplace import input_path, output_path

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from temporal_fabric.requests.models import ExecutionRequest
    from temporal_fabric.requests.resources import Cpu, Gpu, Memory, Resource


def kinds(request: ExecutionRequest, *runs: str) -> Iterator[Shortfall]:
    """Yield whether the payload's kind is none of those that a backend runs."""
    if request.kind not in runs:
        yield Shortfall(
            f"runs {_listed(runs)} payloads, not {request.kind!r}",
            f"give /payload/{runs[0]} instead of /payload/{request.kind}",
        )


def files(request: ExecutionRequest) -> Iterator[Shortfall]:
    """Yield the inputs and outputs that lie outside the folders a payload is given."""
    yield from _inputs(request)
    yield from _outputs(request)


def _inputs(request: ExecutionRequest) -> Iterator[Shortfall]:
    taken: dict[str, str] = {}
    for at, given in request.inputs.items():
        path = input_path(given.mount_path)
        if path is None:
            yield Shortfall(
                f"input {given.mount_path!r} is outside /input",
                f"set {at}/mount_path to a path below /input",
            )
        elif path in taken:
            yield Shortfall(
                f"input {given.mount_path!r} is at the place of {taken[path]}",
                f"set {at}/mount_path to another path",
            )
        else:
            taken[path] = at


def _outputs(request: ExecutionRequest) -> Iterator[Shortfall]:
    for at, output in request.outputs.items():
        if output_path(output.source_path) is None:
            yield Shortfall(
                f"output {output.source_path!r} is outside /output",
                f"set {at}/source_path to a path below /output",
            )


def settings(request: ExecutionRequest) -> Iterator[Shortfall]:
    """Yield the settings that no adapter follows yet."""
    if urlsplit(request.workdir or "").scheme not in {"", "file", "tree"}:
        yield Shortfall(
            f"workdir {request.workdir!r} is not a folder that was brought along",
            "set /workdir to a folder of the submitting machine, or make it an input",
        )
    if request.budget_usd:
        yield Shortfall("'budget_usd' is not supported here", "drop /budget_usd")
    if request.checkpoint is not None and request.checkpoint.path is not None:
        yield Shortfall(
            "checkpoints are kept from $FABRIC_CHECKPOINT_DIR only", "drop /checkpoint/path"
        )


def resources(
    request: ExecutionRequest, *, cores: float, memory_bytes: float, gpus: int | None = 0
) -> Iterator[Shortfall]:
    """Yield what a request needs beyond one machine.

    Args:
        request: An admitted request.
        cores: Of the machine.
        memory_bytes: Of the machine.
        gpus: Whole devices that one payload can be given; None where another looks at them.
    """
    for place, asked in enumerate(request.requirements.resources):
        if asked.type == "gpu" and (gpus is None or not asked.count):
            continue
        at = f"/requirements/resources/{place}"
        yield from resource(asked, at, cores=cores, memory_bytes=memory_bytes, gpus=gpus or 0)


def resource(
    asked: Resource, at: str, *, cores: float, memory_bytes: float, gpus: int = 0
) -> Iterator[Shortfall]:
    """Yield what one resource needs beyond one machine; ``at`` is where it stands."""
    lack = _lack(asked, cores, memory_bytes / GIGABYTE, gpus)
    if lack is not None:
        what, change = lack
        yield Shortfall(what, change.format(at=at))


def _lack(resource: Resource, cores: float, memory_gb: float, gpus: int) -> tuple[str, str] | None:
    """Return what is missing for one resource and what to change, or None where it fits."""
    if resource.type == "cpu":
        return _lacking_cores(resource, cores)
    if resource.type == "memory":
        return _lacking_memory(resource, memory_gb)
    if resource.type == "gpu" and gpus:
        return _lacking_gpu(resource, gpus)
    if resource.type == "nodes" and resource.count == 1:
        return None
    return (f"needs a resource of type {resource.type!r}, has none", "drop {at}")


def _lacking_cores(resource: Cpu, cores: float) -> tuple[str, str] | None:
    if resource.cores <= cores:
        return None
    return (f"needs {resource.cores:g} cores, has {cores:g}", f"set {{at}}/cores to {cores:g}")


def _lacking_memory(resource: Memory, memory_gb: float) -> tuple[str, str] | None:
    if resource.size_gb <= memory_gb:
        return None
    text = f"needs {resource.size_gb:g} GB of memory, has {memory_gb:.1f} GB"
    return (text, f"set {{at}}/size_gb to {int(memory_gb)}")


def _lacking_gpu(resource: Gpu, gpus: int) -> tuple[str, str] | None:
    if resource.count > gpus:
        text = f"needs {resource.count} devices of type 'gpu', has {gpus}"
        return (text, f"set {{at}}/count to {gpus}")
    if resource.model is not None or resource.memory_gb is not None:
        change = "drop {at}/model and {at}/memory_gb; constrain the backend's labels instead"
        return ("does not know model and memory of its devices", change)
    return None


def constraints(
    request: ExecutionRequest, labels: Mapping[str, Any], *, but: Collection[int] = ()
) -> Iterator[Shortfall]:
    """Yield the constraints that a backend's labels do not satisfy.

    Args:
        request: An admitted request.
        labels: The backend's.
        but: Places of constraints that are about something else than its labels.
    """
    for place, constraint in enumerate(request.requirements.constraints):
        if place in but:
            continue
        verdict = check_constraint(constraint, labels)
        if not verdict.ok:
            at = f"/requirements/constraints/{place}"
            change = f"drop {at}, or change the backend's labels in fabric.toml"
            yield Shortfall(f"constraint {verdict.text}", change)


def _listed(names: tuple[str, ...]) -> str:
    quoted = [repr(name) for name in names]
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]] if quoted[1:] else quoted)
