"""What the owner of a host or site says about containers, and what that means for a request.

The options have the same names and rules wherever payloads run in containers of a runtime that is
told what to do: which images may run, what is mounted, which network there is.
"""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

from temporal_fabric.adapters.container_inside import FOLDERS, image_of
from temporal_fabric.adapters.contract import Shortfall
from temporal_fabric.errors import Problem
from temporal_fabric.shapes import is_list

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from temporal_fabric.requests.models import ExecutionRequest

_DIGEST = "sha256:"
_PRIVATE = ("/proc", "/sys", "/dev", "/run/docker.sock", "/var/run/docker.sock")
"""What would give a payload the host: never mounted, whatever the owner lists."""

Rules = dict[str, tuple["Callable[[Any], bool]", str, str]]
"""By option: what is right, the code of what is not, and a sentence."""


class ContainerOptions(Protocol):
    """What an owner allows; see the pages of the backends for what each option means."""

    @property
    def image(self) -> str:
        """What payloads run in that name no image; empty for none."""
        ...

    @property
    def images(self) -> tuple[str, ...]:
        """What else a request may name: patterns of references, and digests."""
        ...

    @property
    def mounts(self) -> tuple[str, ...]:
        """What every payload may read, at the same path."""
        ...

    @property
    def network(self) -> str:
        """Network of a payload that asks for one; empty for none."""
        ...


def is_text(value: Any) -> bool:
    """Return whether an option is a text that says something."""
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


def is_texts(value: Any) -> bool:
    """Return whether an option is a list of such texts."""
    return is_list(value) and all(is_text(item) for item in value)


def _are_mountable(value: Any) -> bool:
    return is_texts(value) and all(_is_mountable(path) for path in value)


def _is_mountable(path: str) -> bool:
    whole_path = os.path.normpath(path)
    private = any(whole_path == at or whole_path.startswith(f"{at}/") for at in _PRIVATE)
    return path.startswith("/") and whole_path not in {"/", "//"} and not private


RULES: Rules = {
    "image": (is_text, "E_IMAGE", "image is one image reference, such as python:3.12-slim"),
    "images": (
        is_texts,
        "E_IMAGE",
        "images is a list of references, with * for anything, and of sha256: digests",
    ),
    "pull": (lambda value: isinstance(value, bool), "E_TYPE", "pull is true or false"),
    "mounts": (
        _are_mountable,
        "E_PATH",
        "mounts is a list of full paths, without /, /proc, /sys, /dev and the engine's socket",
    ),
}
"""The options that every kind of backend with containers has."""


def check(options: Mapping[str, Any], rules: Rules, at: str) -> Iterator[Problem]:
    """Yield the options that break their rule; ``at`` is the path of the table."""
    for name, (right, code, text) in rules.items():
        if name in options and not right(options[name]):
            yield Problem(code, f"{at}/{name}", text, actual=repr(options[name])[:80])


def allowed(
    reference: str, options: ContainerOptions, digests: Collection[str] = frozenset()
) -> bool:
    """Return whether the owner lets an image run.

    Args:
        reference: As the request names it.
        options: The owner's; their own image is always allowed.
        digests: Of the image that has this name, where that is known.
    """
    if reference == options.image:
        return True
    names = {reference, whole(reference)}
    known = {*digests, *(name.partition("@")[2] for name in names)}
    return any(
        pattern in known
        if pattern.startswith(_DIGEST)
        else any(fnmatchcase(name, pattern) for name in names)
        for pattern in options.images
    )


def whole(reference: str) -> str:
    """Return a reference with its tag; one without tag and digest means ``latest``."""
    if "@" in reference or ":" in reference.rpartition("/")[2]:
        return reference
    return f"{reference}:latest"


def image(
    request: ExecutionRequest, options: ContainerOptions, digests: Collection[str] = frozenset()
) -> Iterator[Shortfall]:
    """Yield whether a request has no image, or one that may not run; see `allowed`."""
    reference = image_of(request, options.image)
    if not reference:
        yield Shortfall(
            f"has no image for {request.kind} payloads",
            "name one under /environment/image, or set the backend's option 'image'",
            "E_IMAGE",
        )
    elif not allowed(reference, options, digests):
        at = "/payload/container/image" if request.payload.container else "/environment/image"
        named = ", ".join(options.images) or options.image or "none"
        yield Shortfall(
            f"may not run the image {reference!r} (E_IMAGE); allowed: {named}",
            f"set {at} to an allowed image, or list it in the backend's option 'images'",
            "E_IMAGE",
        )


def environment(request: ExecutionRequest) -> Iterator[Shortfall]:
    """Yield whether a request asks for more in its environment than an image."""
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


def network(request: ExecutionRequest, options: ContainerOptions) -> Iterator[Shortfall]:
    """Yield whether a request asks for a network where the owner gives none."""
    asked = getattr(request.payload.body, "network", None)
    if asked == "outbound" and not options.network:
        yield Shortfall(
            "allows no payload a network (E_ISOLATION)",
            f"drop /payload/{request.kind}/network, or set the backend's option 'network'",
            "E_ISOLATION",
        )


def workdir(request: ExecutionRequest, options: ContainerOptions) -> Iterator[Shortfall]:
    """Yield whether a process would start in a folder that its container has not."""
    if request.payload.container is not None:
        return
    folder = PurePosixPath("/task", getattr(request.payload.body, "workdir", None) or "")
    visible = (*FOLDERS, *options.mounts)
    if not any(folder.is_relative_to(path) for path in visible) or ".." in folder.parts:
        at = f"/payload/{request.kind}/workdir"
        yield Shortfall(
            f"the folder {str(folder)!r} is not in the container (E_ISOLATION)",
            f"drop {at}, bring the folder along (submit --workdir), or list it in the backend's "
            "option 'mounts'",
            "E_ISOLATION",
        )
