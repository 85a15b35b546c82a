"""Whether this host could ever run a request: one reason for everything it cannot do.

What is not enforced or not done here is refused, never quietly left out.
"""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters import fitting
from temporal_fabric.adapters.contract import Shortfall, Verdict
from temporal_fabric.environments import ARCHIVES, FETCHED, host_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from temporal_fabric.requests.engines import FlowPayload
    from temporal_fabric.requests.models import ExecutionRequest
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
        *fitting.settings(request),
        *fitting.resources(
            request,
            cores=os.cpu_count() or 1,
            memory_bytes=_memory_bytes(),
            gpus=0 if request.payload.flow else None,
        ),
        *fitting.constraints(request, labels),
    )


def _payload(request: ExecutionRequest) -> Iterator[Shortfall]:
    wrong = list(fitting.kinds(request, "process", "python", "flow"))
    if not wrong and request.payload.flow is not None:
        wrong = list(_flow(request, request.payload.flow))
    yield from wrong or fitting.files(request)


def _flow(request: ExecutionRequest, flow: FlowPayload) -> Iterator[Shortfall]:
    """Say what the warm process of a host, which serves all of its flows, cannot do."""
    if importlib.util.find_spec("jax") is None:
        yield Shortfall(
            "has no JAX, which certified flows run on",
            "install it on this host: pip install 'temporal-fabric[flows]'",
        )
    if flow.energy is None:
        source = "entry_point" if flow.spec is None else "spec"
        yield Shortfall(
            f"/payload/flow/{source} is nothing that a host can read",
            "give the specification as /payload/flow/energy; 'submit' does that with a spec file",
        )
    held = ("memory_bytes", "cpus", "pids", "open_files", "log_bytes")
    for name in held:
        if getattr(request.limits, name) is not None:
            yield Shortfall(
                f"cannot hold a flow to limits.{name}: all flows of a host share one process",
                f"drop /limits/{name}",
                "E_ISOLATION",
            )
    for name in ("environment", "secrets"):
        if getattr(request, name):
            yield Shortfall(f"a flow has no {name} of its own", f"drop /{name}")


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


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
