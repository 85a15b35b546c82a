"""Images of a Docker backend: which ones may run, and having the one that is asked for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters.container_rules import allowed, whole
from temporal_fabric.errors import BackendError, PermanentBackendError, TransientBackendError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from temporal_fabric.adapters.docker_answers import Image
    from temporal_fabric.adapters.docker_calls import Engine
    from temporal_fabric.adapters.docker_options import DockerOptions

_TRIES = 4
_PAUSE_S = 1.0
"""After the first of them; each further pause is twice as long."""

_FOR_GOOD = ("not found", "denied", "unauthorized", "manifest unknown", "invalid reference")
"""What a registry says that it will say again."""


def digests_of(image: Image | None) -> frozenset[str]:
    """Return an image's id, and the digests by which registries know it."""
    if image is None:
        return frozenset()
    return frozenset({image.id, *(name.partition("@")[2] for name in image.digests)})


def have(
    engine: Engine, reference: str, options: DockerOptions, say: Callable[[str], None]
) -> Image:
    """Return an image, fetched where the engine has not got it.

    Raises:
        PermanentBackendError: it may not run here, or there is no such image.
        TransientBackendError: engine or registry are away, also after some tries.
    """
    found = engine.image(reference)
    if found is None:
        _fetch(engine, reference, options, say)
        found = engine.image(reference)
    if found is None:
        raise TransientBackendError(f"an image was fetched and is gone [image={reference}]")
    if not allowed(reference, options, digests_of(found)):
        raise PermanentBackendError(
            f"the image may not run here (E_IMAGE) [image={reference}, digest={found.id}]: ask "
            "the host's owner to list it in the backend's option 'images'"
        )
    return found


def _fetch(
    engine: Engine, reference: str, options: DockerOptions, say: Callable[[str], None]
) -> None:
    if not options.pull:
        raise PermanentBackendError(
            f"the image is not here, and the backend fetches none [image={reference}]: "
            f"docker pull {reference} on its host, or set the option 'pull'"
        )
    for tried in range(1, _TRIES + 1):
        try:
            _pull(engine, whole(reference), say)
        except BackendError as exc:
            if isinstance(exc, PermanentBackendError) or any(w in str(exc) for w in _FOR_GOOD):
                raise PermanentBackendError(
                    f"the image cannot be fetched (E_IMAGE) [image={reference}]: {exc}; check its "
                    "name, or log the worker's user in at its registry"
                ) from exc
            if tried == _TRIES:
                raise
            say(f"fetching {reference} again: {exc}")
            time.sleep(_PAUSE_S * 2 ** (tried - 1))
        else:
            return


def _pull(engine: Engine, reference: str, say: Callable[[str], None]) -> None:
    say(f"fetching {reference}")
    layers: dict[str, tuple[int, int]] = {}
    for told in engine.pull(reference):
        if error := told.get("error"):
            raise TransientBackendError(str(error)[:300])
        amount = _amount(told)
        if amount is not None:
            layers[str(told.get("id"))] = amount
            here, of = (sum(column) for column in zip(*layers.values(), strict=True))
            say(f"fetching {reference}: {here / 1e6:.1f} of {of / 1e6:.1f} MB")


def _amount(told: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return how much of a layer has come, of how much; None where the line is about none."""
    detail: dict[str, Any] = told.get("progressDetail") or {}
    if told.get("status") != "Downloading" or not detail.get("total"):
        return None
    return (int(detail.get("current", 0)), int(detail["total"]))
