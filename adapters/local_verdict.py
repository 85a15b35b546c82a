"""Whether this host could ever run a request: one reason for everything it cannot do.

What is not enforced or not done here is refused, never quietly left out.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from temporal_fabric.adapters.contract import Shortfall, Verdict
from temporal_fabric.environments import ARCHIVES, FETCHED, host_file
from temporal_fabric.requests.constraints import check_constraint
from temporal_fabric.workplace import input_path, output_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from temporal_fabric.requests.models import ExecutionRequest
    from temporal_fabric.requests.resources import Resource
    from temporal_fabric.requests.settings import Environment


def local_verdict(request: ExecutionRequest, labels: Mapping[str, Any]) -> Verdict:
    """Compare a request with this host.

    Args:
        request: An admitted request.
        labels: The backend's labels, which the request's constraints name.
    """
    return Verdict.of(
        *_payload(request),
        *_environment(request),
        *_settings(request),
        *_resources(request),
        *_constraints(request, labels),
    )


def _payload(request: ExecutionRequest) -> Iterator[Shortfall]:
    process = request.payload.process or request.payload.python
    if process is None:
        yield Shortfall(
            f"runs 'process' and 'python' payloads, not {request.kind!r}",
            f"give /payload/process instead of /payload/{request.kind}",
        )
        return
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


def _environment(request: ExecutionRequest) -> Iterator[Shortfall]:
    asked = request.environment
    if asked is None:
        return
    if asked.image is not None:
        yield Shortfall(
            "starts processes of this host, and cannot start them in an image",
            "name a backend that runs containers (kind docker or kubernetes), or give "
            "/environment/requirements, lock or conda_pack instead of image",
        )
    yield from _conda_pack(asked)
    for name in ("requirements", "lock"):
        file = getattr(asked, name)
        if isinstance(file, str) and host_file(file) is None:
            yield Shortfall(
                f"the environment's file {file!r} is not a full path on this host",
                f"set /environment/{name} to a full path, or list the requirements",
            )


def _conda_pack(asked: Environment) -> Iterator[Shortfall]:
    if asked.conda_pack is None:
        return
    if not asked.conda_pack.endswith(ARCHIVES):
        yield Shortfall(
            f"unpacks {', '.join(ARCHIVES)}, not {asked.conda_pack!r}",
            "pack it anew: conda-pack --format tar.gz",
        )
    if host_file(asked.conda_pack) is None and not asked.conda_pack.startswith(FETCHED):
        yield Shortfall(
            f"the archive {asked.conda_pack!r} is not a full path on this host",
            f"set /environment/conda_pack to a full path or a URI: {', '.join(FETCHED)}",
        )
    elif host_file(asked.conda_pack) is None and asked.sha256 is None:
        yield Shortfall(
            f"the archive {asked.conda_pack!r} lies elsewhere and has no digest",
            "set /environment/sha256",
        )


def _settings(request: ExecutionRequest) -> Iterator[Shortfall]:
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


def _resources(request: ExecutionRequest) -> Iterator[Shortfall]:
    for place, resource in enumerate(request.requirements.resources):
        lack = _lack(resource)
        if lack is not None:
            what, change = lack
            at = f"/requirements/resources/{place}"
            yield Shortfall(what, change.format(at=at))


def _lack(resource: Resource) -> tuple[str, str] | None:
    """Return what is missing for one resource and what to change, or None where it fits."""
    cores, memory_gb = os.cpu_count() or 1, _memory_bytes() / 1e9
    if resource.type == "cpu":
        if resource.cores <= cores:
            return None
        return (f"needs {resource.cores:g} cores, has {cores}", f"set {{at}}/cores to {cores}")
    if resource.type == "memory":
        if resource.size_gb <= memory_gb:
            return None
        fits = int(memory_gb)
        text = f"needs {resource.size_gb:g} GB of memory, has {memory_gb:.1f} GB"
        return (text, f"set {{at}}/size_gb to {fits}")
    if resource.type == "nodes" and resource.count == 1:
        return None
    return (f"needs a resource of type {resource.type!r}, has none", "drop {at}")


def _constraints(request: ExecutionRequest, labels: Mapping[str, Any]) -> Iterator[Shortfall]:
    for place, constraint in enumerate(request.requirements.constraints):
        verdict = check_constraint(constraint, labels)
        if not verdict.ok:
            at = f"/requirements/constraints/{place}"
            change = f"drop {at}, or change the backend's labels in fabric.toml"
            yield Shortfall(f"constraint {verdict.text}", change)


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
