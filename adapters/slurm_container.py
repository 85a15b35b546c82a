"""A payload's container on a Slurm site: whether it can be had, and how it is started."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from temporal_fabric import durable
from temporal_fabric.adapters import container_rules
from temporal_fabric.adapters.container_inside import (
    CALL,
    RUNNER,
    WRITTEN,
    image_of,
    program_of,
    variables,
)
from temporal_fabric.adapters.contract import Shortfall
from temporal_fabric.adapters.slurm_options import RestOptions
from temporal_fabric.adapters.slurm_runtimes import NOTHING, RUNTIMES, Container

if TYPE_CHECKING:
    from collections.abc import Iterator

    from temporal_fabric.adapters.contract import AttemptSpec
    from temporal_fabric.adapters.slurm_batch import Place
    from temporal_fabric.adapters.slurm_options import SlurmOptions
    from temporal_fabric.requests.models import ExecutionRequest

OWN_MIB = 160
"""Memory of the runtime itself, which the payload's limit does not count."""

_PASSED = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")
"""What Slurm tells a job of its devices."""


def is_contained(request: ExecutionRequest, site: SlurmOptions) -> bool:
    """Return whether a request runs in a container of the site."""
    return bool(site.runtime and image_of(request, site.image))


def lacking(request: ExecutionRequest, site: SlurmOptions) -> Iterator[Shortfall]:
    """Yield what speaks against a request that runs in a container of the site."""
    yield from container_rules.image(request, site)
    yield from container_rules.environment(request)
    yield from container_rules.network(request, site)
    yield from container_rules.workdir(request, site)
    if site.runtime == "podman":
        for name, value in program_of(request).env.items():
            if "\n" in value:
                yield Shortfall(
                    "podman takes no variable of several lines",
                    f"drop the line breaks in /payload/{request.kind}/env/{name}, or bring a file",
                )


def needs(site: SlurmOptions) -> dict[str, Any]:
    """Return what the login node is asked to look for, as a hint of what the nodes have.

    Nothing where there is none: the worker's own host, which answers then, is no part of the site.
    """
    if not site.runtime or isinstance(site, RestOptions):
        return {}
    programs = [site.runtime, *(["crun"] if site.runtime == "podman" else [])]
    return {"programs": programs, "image_folder": site.image_folder}


def record(attempt: AttemptSpec, site: SlurmOptions) -> None:
    """Write down for the capsule in which image an attempt runs, and by which runtime."""
    if is_contained(attempt.request, site):
        text = f"image {image_of(attempt.request, site.image)}\nruntime {site.runtime}\n"
        durable.replace(attempt.folder / "environment.txt", text.encode())


def plan_of(
    attempt: AttemptSpec, place: Place, site: SlurmOptions, memory_bytes: int | None
) -> dict[str, Any]:
    """Return what `slurm_on_node_container` reads."""
    request, program = attempt.request, program_of(attempt.request)
    asked = Container(
        image=registered(image_of(request, site.image)),
        folder=site.image_folder,
        pull=site.pull,
        job=place.job,
        program=program,
        binds=tuple(_binds(attempt, place, site)),
        gpus=any(r.type == "gpu" and r.count for r in request.requirements.resources),
        memory_bytes=memory_bytes,
        open_files=request.limits.open_files,
    )
    return {
        **NOTHING,
        **RUNTIMES[site.runtime](asked),
        "written": [f"{place.folder}/{name}" for name in WRITTEN],
        "stderr": f"{place.folder}/stderr.log",
        "env": variables(program, attempt.env),
        "passed": _PASSED,
    }


def _binds(
    attempt: AttemptSpec, place: Place, site: SlurmOptions
) -> Iterator[tuple[str, str, bool]]:
    yield (f"{place.folder}/input", "/input", True)
    for name in ("task", "output"):
        yield (f"{place.folder}/{name}", f"/{name}", False)
    yield (place.checkpoints, "/checkpoints", False)
    for name in WRITTEN:
        yield (f"{place.folder}/{name}", f"/fabric/{name}", False)
    if attempt.request.payload.python is not None:
        yield (f"{place.job}/call.json", CALL, True)
        yield (f"{place.job}/runner.py", RUNNER, True)
    for path in site.mounts:
        yield (path, path, True)


def registered(reference: str) -> str:
    """Return a reference with its registry and tag; Docker's own where it names none."""
    first, slash, _ = reference.partition("/")
    if slash and (first == "localhost" or not {".", ":"}.isdisjoint(first)):
        return container_rules.whole(reference)
    return f"docker.io/{'' if slash else 'library/'}{container_rules.whole(reference)}"
