"""Whether this host could ever run a request: one reason for everything it cannot do.

What is not enforced or not done here is refused, never quietly left out.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters.contract import Shortfall, Verdict
from temporal_fabric.requests.constraints import check_constraint
from temporal_fabric.workplace import output_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from temporal_fabric.requests.models import ExecutionRequest
    from temporal_fabric.requests.payloads import ProcessPayload
    from temporal_fabric.requests.resources import Resource

_NOT_YET = (
    "environment",
    "secrets",
    "workdir",
    "notify",
    "deadline",
    "budget_usd",
    "queue_timeout",
)
_LIMITS_NOT_YET = ("log_bytes", "output_bytes")


def local_verdict(request: ExecutionRequest, labels: Mapping[str, Any]) -> Verdict:
    """Compare a request with this host.

    Args:
        request: An admitted request.
        labels: The backend's labels, which the request's constraints name.
    """
    return Verdict.of(
        *_payload(request),
        *_settings(request),
        *_resources(request),
        *_constraints(request, labels),
    )


def _payload(request: ExecutionRequest) -> Iterator[Shortfall]:
    process = request.payload.process
    if process is None:
        yield Shortfall(
            f"runs 'process' payloads, not {request.kind!r}",
            f"give /payload/process instead of /payload/{request.kind}",
        )
        return
    if process.inputs or request.artifacts.inputs:
        yield Shortfall("inputs are not staged here", "read inputs by their path on this host")
    if request.artifacts.outputs:
        yield Shortfall("collects /payload/process/outputs only", "move /artifacts/outputs there")
    yield from _outputs(process)
    if process.isolation not in {None, "none"}:
        yield Shortfall(
            f"isolation {process.isolation!r} cannot be enforced here (E_ISOLATION)",
            "set /payload/process/isolation to 'none'",
        )


def _outputs(process: ProcessPayload) -> Iterator[Shortfall]:
    for place, output in enumerate(process.outputs):
        at = f"/payload/process/outputs/{place}"
        if output_path(output.source_path) is None:
            yield Shortfall(
                f"output {output.source_path!r} is outside /output",
                f"set {at}/source_path to a path below /output",
            )
        if output.target_uri:
            yield Shortfall(
                f"outputs stay in the capsule, {output.target_uri!r} is not written",
                f"drop {at}/target_uri",
            )


def _settings(request: ExecutionRequest) -> Iterator[Shortfall]:
    for name in _NOT_YET:
        if getattr(request, name):
            yield Shortfall(f"{name!r} is not supported here", f"drop /{name}")
    for name in _LIMITS_NOT_YET:
        if getattr(request.limits, name) is not None:
            yield Shortfall(f"the limit {name!r} cannot be enforced here", f"drop /limits/{name}")
    for reason, change in (request.retry.on or {}).items():
        if change.model_dump(exclude_none=True):
            yield Shortfall(
                "a retry with other resources is not supported here",
                f"drop the changes of /retry/on/{reason}",
            )
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
