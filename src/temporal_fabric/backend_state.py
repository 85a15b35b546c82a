"""What a worker tells of its backends, as it travels to who asks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

OK = "ok"
SILENT = "silent"
FAILING = "failing"
"""The healths of a backend: it answers, its worker does not, or its worker cannot reach it."""


@dataclass(frozen=True, slots=True)
class BackendState:
    """One backend as it is now."""

    name: str
    kind: str = ""
    health: str = OK
    """`OK`, `SILENT` or `FAILING`."""

    slots: int | None = None
    """Places in all; None where the backend has a queue of its own, or where nobody answers."""

    used: int = 0
    waiting: int = 0
    """Experiments that wait for a place here; one that fits several backends waits on each."""

    drained: bool = False
    drained_since: str = ""
    drained_reason: str = ""
    labels: dict[str, Any] = field(default_factory=dict[str, Any])
    isolation: dict[str, str] = field(default_factory=dict[str, str])
    """For each level ``yes``, or why the host cannot hold it."""

    usd_per_hour: float | None = None
    """Price of one place, where the adapter names one."""

    experimental: str = ""
    """Why its adapter has not shown that it keeps the contract; empty where it has."""

    unusable: str = ""
    """Why it is given nothing new now, however many places are free; empty where it is."""

    gpus: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """Each GPU that it gives whole: ``id``, ``name``, ``memory_bytes``, and ``state``: ``free``,
    or who has it, or why nobody gets it."""

    no_gpus: str = ""
    """Why it has none, where its kind could."""


@dataclass(frozen=True, slots=True)
class BackendsAnswer:
    """The backends of one worker."""

    host: str
    backends: list[BackendState] = field(default_factory=list[BackendState])


@dataclass(frozen=True, slots=True)
class DrainInput:
    """Drain a backend, or undrain it."""

    backend: str
    drained: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class HaltInput:
    """Stop the device of a backend at once."""

    backend: str
    by: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class HaltAnswer:
    """A device that has stopped, and what became of the experiment that had it."""

    backend: str
    tenant: str = ""
    request_id: str = ""
    """The experiment; empty where none had the device."""

    epoch: int = 0
    message: str = ""
    """How its attempt ended."""

    question: str = ""
    """What a person is asked before anything of it goes on."""

    drained: bool = True
    """Whether nothing new is placed there until it is undrained."""
