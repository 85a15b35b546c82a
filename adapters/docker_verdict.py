"""Whether a Docker backend could ever run a request, and whether its engine is fit at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters import container_rules, fitting
from temporal_fabric.adapters.container_inside import image_of
from temporal_fabric.adapters.contract import Shortfall, Verdict
from temporal_fabric.adapters.docker_images import digests_of
from temporal_fabric.adapters.docker_profile import cores_of, memory_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from temporal_fabric.adapters.docker_answers import About, Image
    from temporal_fabric.adapters.docker_options import DockerOptions
    from temporal_fabric.requests.models import ExecutionRequest

OLDEST_API = (1, 41)
"""Docker 20.10, the oldest engine this was tried on."""

_LEAST_MEMORY = 2**23


def unfit(about: About) -> str:
    """Return why an engine cannot be used and, after a colon, what to do; empty where it can."""
    if about.system != "linux":
        return f"the engine runs {about.system} containers: use one for Linux"
    if about.api < OLDEST_API:
        found, wanted = (".".join(map(str, api)) for api in (about.api, OLDEST_API))
        return f"the engine {about.version} speaks API {found}, needs {wanted}: update Docker"
    for mode in ("rootless", "userns"):
        if f"name={mode}" in about.security:
            return (
                f"the engine runs with {mode}, where users inside are others than on the host, so "
                "that a payload cannot reach its folders: use an engine without it"
            )
    if lacking := [what for what, can in about.limits.items() if not can]:
        return (
            f"the engine cannot limit {', '.join(lacking)}: give it the control groups of this "
            "host, see 'docker info'"
        )
    if not about.init:
        return "the engine has no init process: install docker-init (Debian: tini)"
    return ""


def docker_verdict(
    request: ExecutionRequest,
    labels: Mapping[str, Any],
    options: DockerOptions,
    about: About,
    image: Image | None,
) -> Verdict:
    """Compare a request with an engine.

    Args:
        request: An admitted request.
        labels: The backend's labels, which the request's constraints name.
        options: What the host's owner allows.
        about: The engine.
        image: What the engine has under the name of the request's image.
    """
    if why := unfit(about):
        reason, _, change = why.rpartition(": ")
        return Verdict.of(Shortfall(reason, change))
    if wrong := list(fitting.kinds(request, "process", "python", "container")):
        return Verdict.of(*wrong)
    return Verdict.of(
        *fitting.files(request),
        *_image(request, options, image),
        *container_rules.environment(request),
        *fitting.settings(request),
        *fitting.resources(request, cores=about.cores, memory_bytes=about.memory_bytes, gpus=None),
        *_limits(request, about),
        *container_rules.network(request, options),
        *container_rules.workdir(request, options),
        *fitting.constraints(request, labels),
    )


def _image(
    request: ExecutionRequest, options: DockerOptions, image: Image | None
) -> Iterator[Shortfall]:
    lacking = list(container_rules.image(request, options, digests_of(image)))
    yield from lacking
    if not lacking and image is None and not options.pull:
        reference = image_of(request, options.image)
        yield Shortfall(
            f"has not got the image {reference!r} and fetches none (E_IMAGE)",
            f"docker pull {reference} on its host, or set the backend's option 'pull'",
            "E_IMAGE",
        )


def _limits(request: ExecutionRequest, about: About) -> Iterator[Shortfall]:
    if request.secrets:
        yield Shortfall(
            "gives no secrets to a container: its engine would keep them (E_SECRET)",
            "drop /secrets, or name a backend of kind local",
            "E_SECRET",
        )
    if request.limits.log_bytes is not None:
        yield Shortfall("output is not cut here (E_ISOLATION)", "drop /limits/log_bytes")
    memory, cores = memory_of(request) or _LEAST_MEMORY, cores_of(request) or 0.0
    if memory < _LEAST_MEMORY:
        change = f"set /limits/memory_bytes to {_LEAST_MEMORY}"
        yield Shortfall(f"a container takes {_LEAST_MEMORY} bytes of memory at least", change)
    if memory > about.memory_bytes and request.limits.memory_bytes is not None:
        yield Shortfall(
            f"may use {memory} bytes of memory, the engine has {about.memory_bytes}",
            f"set /limits/memory_bytes to {about.memory_bytes}",
        )
    if cores > about.cores and request.limits.cpus is not None:
        yield Shortfall(
            f"may use {cores:g} cores, the engine has {about.cores:g}",
            f"set /limits/cpus to {about.cores:g}",
        )
