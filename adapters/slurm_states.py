"""What Slurm and the job's own files say, in the fabric's words. The tables are the whole map.

Read from strict models: an answer of another shape is no answer.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from temporal_fabric.adapters.contract import JobStatus, Phase
from temporal_fabric.adapters.slurm_on_login_jobs import FORBIDDEN
from temporal_fabric.errors import BackendUnknown
from temporal_fabric.states import Reason

WHY: dict[str, tuple[Reason, str]] = {
    "wall": (Reason.TIMEOUT, "the wall limit was reached"),
    "exec": (Reason.SETUP, "the command could not be started"),
    "requeued": (Reason.LOST, "Slurm requeued the job, and no attempt runs twice"),
    "terminated": (Reason.SIGNAL, "terminated by the fabric"),
    "slurm": (Reason.SIGNAL, "stopped by a signal from Slurm or a person"),
}
"""Ends that the job itself wrote down, by its word for them."""

ENDS: dict[str, tuple[Reason, str]] = {
    "BOOT_FAIL": (Reason.LOST, "a node did not boot"),
    "CANCELLED": (Reason.SIGNAL, "cancelled in Slurm by somebody else"),
    "COMPLETED": (Reason.LOST, "the job ended without a word of its payload"),
    "DEADLINE": (Reason.TIMEOUT, "Slurm ended it at its deadline"),
    "FAILED": (Reason.LOST, "the job failed without a word of its payload"),
    "NODE_FAIL": (Reason.LOST, "a node failed under it"),
    "OUT_OF_MEMORY": (Reason.OOM, "Slurm killed it for memory"),
    "PREEMPTED": (Reason.PREEMPTED, "preempted by Slurm"),
    "REVOKED": (Reason.LOST, "another cluster has taken it over"),
    "TIMEOUT": (Reason.TIMEOUT, "Slurm's time limit was reached"),
    "UNKNOWN": (Reason.LOST, "Slurm does not know the job any more, and it left no word"),
}
"""Ends that only Slurm knows of, by Slurm's state; one that is not here is LOST."""

PERMANENT = (
    "Invalid account",
    "Invalid partition",
    "invalid partition",
    "Invalid qos",
    "Invalid license",
    "Invalid feature",
    "Invalid job array specification",
    "Invalid generic resource",
    "Requested node configuration is not available",
    "More processors requested than permitted",
    "Memory specification can not be satisfied",
    "Node count specification invalid",
    "Requested time limit is invalid",
    "violates accounting/QOS policy",
    "User's group not permitted to use this partition",
    "unrecognized option",
    "invalid option",
    "Invalid --",
)
"""Words of sbatch after which the same submission fails again; anything else may not."""

_STRICT = ConfigDict(strict=True, extra="ignore")


class _Job(BaseModel):
    model_config = _STRICT
    id: str
    state: str
    reason: str
    start: str
    nodes: str


class _Exit(BaseModel):
    model_config = _STRICT
    why: str
    exit_code: int | None
    signal: int | None
    error: str = ""
    began: float | None = None
    ended: float | None = None
    cpu_s: float | None = None
    max_rss_bytes: int | None = None
    oom_kills: int = 0
    paused_s: float = 0.0
    native: str = ""
    claimed: bool = True
    memory: bool = False
    words: str = ""


class _Answer(BaseModel):
    model_config = _STRICT
    paused: bool = False
    paused_s: float = 0.0


class Seen(BaseModel):
    """One look at an attempt."""

    model_config = _STRICT
    claim: str
    id: str
    exit: _Exit | None
    known: bool = True
    began: float | None = None
    job: _Job | None = None
    answer: _Answer = _Answer()
    folder: str = ""
    """Where its files lie on the cluster."""

    sizes: dict[str, int] = Field(default_factory=dict[str, int])


def read_seen(told: Any) -> Seen:
    """Read the answer to a look.

    Raises:
        BackendUnknown: it is none.
    """
    if isinstance(told, dict) and set(told) == {"trouble"}:  # pyright: ignore[reportUnknownArgumentType]
        raise BackendUnknown(f"Slurm cannot be asked: {told['trouble']}")
    try:
        return Seen.model_validate(told)
    except ValidationError as exc:
        raise BackendUnknown(f"the login node's answer has another shape: {exc}") from exc


def status_of(seen: Seen) -> JobStatus:
    """Return what one look means."""
    native = f"job {seen.id}" if seen.id else ""
    if seen.exit is not None:
        return _ended(seen.exit, native)
    if seen.claim == FORBIDDEN:
        message = "the attempt was terminated before its payload began"
        return JobStatus(Phase.LOST, native, reason=Reason.LOST, message=message)
    if not seen.known:
        return JobStatus(Phase.ABSENT)
    return JobStatus(
        Phase.RUNNING,
        native,
        message="" if seen.began else _waits(seen.job),
        started_at=seen.began,
        paused=seen.answer.paused or (seen.job is not None and seen.job.state == "SUSPENDED"),
        paused_s=seen.answer.paused_s,
    )


def _waits(job: _Job | None) -> str:
    """Say in Slurm's own words what a job waits for, and when Slurm expects it to start."""
    if job is None:
        return "Slurm has it, and does not show it"
    if job.state != "PENDING":
        return f"Slurm says {job.state}" + (f" on {job.nodes}" if job.nodes else "")
    text = f"waits in Slurm's queue: {job.reason}"
    return text if job.start in {"", "N/A"} else f"{text}; expected to start {job.start}"


def _ended(told: _Exit, native: str) -> JobStatus:
    reason, message = _reason(told)
    if told.error:
        message = f"{message}: {told.error}"
    if told.words and reason in {Reason.LOST, Reason.SETUP, Reason.OOM} and told.native:
        message = f"{message}; Slurm wrote: {told.words[-500:]}"
    return JobStatus(
        phase=Phase.LOST if reason == Reason.LOST else Phase.ENDED,
        native_id=native,
        exit_code=told.exit_code,
        signal=told.signal,
        oom_kills=told.oom_kills,
        reason=reason,
        message=message,
        started_at=told.began,
        ended_at=told.ended,
        cpu_s=told.cpu_s,
        max_rss_bytes=told.max_rss_bytes,
        paused_s=told.paused_s,
    )


def _reason(told: _Exit) -> tuple[str, str]:
    """Name an end that the payload did not choose itself; empty where it did."""
    if told.memory and told.native not in {"TIMEOUT", "PREEMPTED", "NODE_FAIL"}:
        return ENDS["OUT_OF_MEMORY"]
    if not told.claimed and told.native in {"FAILED", "COMPLETED"}:
        return (Reason.SETUP, "the job ended before its payload began")
    if told.why == "terminated" or (told.why and not told.native):
        return WHY.get(told.why, ("", ""))
    if not told.native:
        return ("", "")
    if told.why == "slurm" and told.native in {"COMPLETED", "FAILED", "UNKNOWN"}:
        return WHY["slurm"]
    reason, message = ENDS.get(told.native, (Reason.LOST, "Slurm ended it"))
    return (reason, f"{message} (Slurm: {told.native})")
