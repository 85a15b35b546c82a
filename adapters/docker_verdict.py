"""Whether a Docker backend could ever run a request, and whether its engine is fit at all."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters import fitting
from temporal_fabric.adapters.contract import Shortfall, Verdict
from temporal_fabric.adapters.docker_images import allowed
from temporal_fabric.adapters.docker_profile import FOLDERS, cores_of, image_of, memory_of

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
        *_environment(request),
        *fitting.settings(request),
        *fitting.resources(
            request, cores=about.cores, memory_bytes=about.memory_bytes, gpus=len(options.gpus)
        ),
        *_limits(request, about),
        *_network(request, options),
        *_workdir(request, options),
        *fitting.constraints(request, labels),
    )


def _image(
    request: ExecutionRequest, options: DockerOptions, image: Image | None
) -> Iterator[Shortfall]:
    reference, at = image_of(request, options), _place_of_image(request)
    if not reference:
        yield Shortfall(
            f"has no image for {request.kind} payloads",
            "name one under /environment/image, or set the backend's option 'image'",
            "E_IMAGE",
        )
    elif not allowed(reference, image, options):
        named = ", ".join(options.images) or options.image or "none"
        yield Shortfall(
            f"may not run the image {reference!r} (E_IMAGE); allowed: {named}",
            f"set {at} to an allowed image, or list it in the backend's option 'images'",
            "E_IMAGE",
        )
    elif image is None and not options.pull:
        yield Shortfall(
            f"has not got the image {reference!r} and fetches none (E_IMAGE)",
            f"docker pull {reference} on its host, or set the backend's option 'pull'",
            "E_IMAGE",
        )


def _place_of_image(request: ExecutionRequest) -> str:
    return "/payload/container/image" if request.payload.container else "/environment/image"


def _environment(request: ExecutionRequest) -> Iterator[Shortfall]:
    asked = request.environment
    if asked is None:
        return
    if asked.image is None:
        yield Shortfall(
            "installs nothing into a container",
            "give /environment/image instead, an image that has what is needed",
        )
    elif request.payload.container is not None:
        yield Shortfall(
            "a container payload has its image already",
            "drop /environment, or /payload/container for /payload/process",
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


def _network(request: ExecutionRequest, options: DockerOptions) -> Iterator[Shortfall]:
    asked = getattr(request.payload.body, "network", None)
    if asked == "outbound" and not options.network:
        yield Shortfall(
            "allows no payload a network (E_ISOLATION)",
            f"drop /payload/{request.kind}/network, or set the backend's option 'network'",
            "E_ISOLATION",
        )


def _workdir(request: ExecutionRequest, options: DockerOptions) -> Iterator[Shortfall]:
    if request.payload.container is not None:
        return
    workdir = PurePosixPath("/task", getattr(request.payload.body, "workdir", None) or "")
    visible = (*FOLDERS, *options.mounts)
    if not any(workdir.is_relative_to(path) for path in visible) or ".." in workdir.parts:
        at = f"/payload/{request.kind}/workdir"
        yield Shortfall(
            f"the folder {str(workdir)!r} is not in the container (E_ISOLATION)",
            f"drop {at}, bring the folder along (submit --workdir), or list it in the backend's "
            "option 'mounts'",
            "E_ISOLATION",
        )
