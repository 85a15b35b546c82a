"""The devices of a host, and which of them a request means."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from temporal_fabric.requests.quantities import GIGABYTE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from temporal_fabric.requests.models import ExecutionRequest
    from temporal_fabric.requests.resources import Gpu

_WORD = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU as the driver shows it."""

    id: str
    """Its UUID; another name of it where only that is known."""

    index: int | None = None
    name: str = ""
    """Model in the driver's words, such as ``NVIDIA A100-SXM4-80GB``; empty where unknown."""

    memory_bytes: int | None = None
    minor: int | None = None
    """Number of its device file, ``/dev/nvidia<minor>``."""

    unfit: str = ""
    """Why it is given to nobody."""

    processes: tuple[int, ...] = ()
    """Processes that compute on it now."""

    def meets(self, asked: Gpu) -> bool:
        """Say whether it is of the model and has the memory that a request asks for."""
        if self.unfit:
            return False
        if asked.model is not None and not self._is(asked.model):
            return False
        return asked.memory_gb is None or (self.memory_bytes or 0) >= asked.memory_gb * GIGABYTE

    def _is(self, model: str) -> bool:
        """Compare by words: an A100 is an ``NVIDIA A100-SXM4-80GB``, and an A10 is not."""
        return _words(model) <= _words(self.name)


@dataclass(frozen=True, slots=True)
class Found:
    """What a look at a host has found."""

    devices: tuple[Device, ...] = ()
    none: str = ""
    """Why there is no device; empty where there are some."""

    def facts(self) -> dict[str, Any]:
        """Return the labels that constraints can name; none where there is no device to give.

        ``gpu.count``; ``gpu.model`` where all have the same; ``gpu.memory``, gigabytes of the
        smallest.
        """
        given = [device for device in self.devices if not device.unfit]
        if not given:
            return {}
        names = {device.name for device in given}
        sizes = [device.memory_bytes for device in given if device.memory_bytes is not None]
        model = {"gpu.model": names.pop()} if len(names) == 1 and "" not in names else {}
        memory = {"gpu.memory": round(min(sizes) / GIGABYTE, 1)} if len(sizes) == len(given) else {}
        return {"gpu.count": len(given), **model, **memory}


def asked_of(request: ExecutionRequest) -> tuple[Gpu, ...]:
    """Return the GPUs that a request asks for, in its order; an entry of none is left out."""
    resources = request.requirements.resources
    return tuple(found for found in resources if found.type == "gpu" and found.count)


def chosen(asked: Sequence[Gpu], among: Iterable[Device]) -> tuple[Device, ...] | None:
    """Return whole devices for every entry of a request; None where there are too few.

    What says more is served first, so that an entry that takes any leaves it what it needs.
    """
    left, taken = list(among), list[Device]()
    for entry in sorted(asked, key=lambda one: (one.model is None, -(one.memory_gb or 0))):
        fitting = [device for device in left if device.meets(entry)][: entry.count]
        if len(fitting) < entry.count:
            return None
        taken += fitting
        left = [device for device in left if device not in fitting]
    return tuple(taken)


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))
