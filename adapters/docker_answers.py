"""What a Docker engine tells, read: an answer of another form is an error, never a guess.

Every function raises ValueError, KeyError, TypeError or AttributeError for what means nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from temporal_fabric.shapes import is_table

if TYPE_CHECKING:
    from collections.abc import Mapping

CREATED, RUNNING, PAUSED, EXITED = "created", "running", "paused", "exited"

_STATUSES = frozenset({CREATED, RUNNING, PAUSED, EXITED, "restarting", "removing", "dead"})


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at a container."""

    id: str
    status: str
    labels: Mapping[str, str]
    exit_code: int
    oom_killed: bool
    error: str
    started_at: float | None
    """Unix seconds; None where it never ran."""

    finished_at: float | None

    @property
    def live(self) -> bool:
        """Whether it has processes."""
        return self.status in {RUNNING, PAUSED, "restarting"}


@dataclass(frozen=True, slots=True)
class About:
    """What an engine is and can."""

    version: str
    api: tuple[int, int]
    cores: float
    memory_bytes: int
    limits: Mapping[str, bool]
    """Whether memory, processor time and processes can be limited."""

    security: tuple[str, ...]
    live_restore: bool
    init: str
    system: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image that the engine has."""

    id: str
    """Digest of its configuration, which names its content."""

    digests: tuple[str, ...] = field(default=())
    """Names with the digest a registry knows it by."""


def _version(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return (int(major), int(minor))


def about(told: Any, api: str) -> About:
    """Read what an engine tells of itself, and the version of its API that is spoken."""
    return About(
        version=str(told["ServerVersion"]),
        api=_version(api),
        cores=float(told["NCPU"]),
        memory_bytes=int(told["MemTotal"]),
        limits={
            "memory": bool(told["MemoryLimit"]),
            "processor time": bool(told["CpuCfsQuota"]),
            "processes": bool(told["PidsLimit"]),
        },
        security=tuple(told.get("SecurityOptions") or ()),
        live_restore=bool(told.get("LiveRestoreEnabled")),
        init=str(told.get("InitBinary") or ""),
        system=str(told["OSType"]),
    )


def image_of(told: Any) -> Image:
    """Read an image."""
    return Image(id_of(told), tuple(told.get("RepoDigests") or ()))


def id_of(told: Any) -> str:
    """Read the id of anything."""
    if not isinstance(told["Id"], str):
        raise TypeError(told)
    return told["Id"]


def seen(told: Any) -> Seen:
    """Read a container."""
    state = told["State"]
    code, killed = state["ExitCode"], state["OOMKilled"]
    if (
        state["Status"] not in _STATUSES
        or not isinstance(code, int)
        or not isinstance(killed, bool)
    ):
        raise ValueError(f"no container: {told}")
    return Seen(
        id=id_of(told),
        status=state["Status"],
        labels=labels_of(told["Config"]),
        exit_code=code,
        oom_killed=killed,
        error=str(state.get("Error") or ""),
        started_at=_moment(state["StartedAt"]),
        finished_at=_moment(state["FinishedAt"]),
    )


def labels_of(told: Any) -> dict[str, str]:
    """Read the labels of a container."""
    labels: Any = told["Labels"] or {}
    if not is_table(labels):
        raise TypeError(labels)
    return {str(key): str(value) for key, value in labels.items()}


def _moment(text: str) -> float | None:
    moment = datetime.fromisoformat(text)
    return None if moment.year == 1 else moment.timestamp()
