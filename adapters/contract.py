"""The contract between the fabric and one kind of backend.

An adapter is asynchronous and holds no state that matters: everything is found again from
the attempt's key after a crash. The promises below are what the fabric's own guarantees
stand on, so they are part of the interface:

* *One job per attempt.* `Adapter.submit` may be called any number of times, by any number
  of processes, for the same (experiment, epoch): at most one job ever runs.
* *Unknown is not absent.* `Adapter.find` answers ABSENT only with proof. A missing answer is
  `temporal_fabric.errors.BackendUnknown`, which is retried and never permits a create.
* *Terminated means gone.* `Adapter.terminate` returns only with proof that nothing of the
  attempt runs and that a late `submit` of it will be refused.
* *Success is not guessed.* A status is ENDED only when the backend says so.

Every call may be repeated, raced by the same or another call from any process, and given up
(cancelled) at any moment, before or after the backend has acted. Transient trouble is
`TransientBackendError`: repeat the call. Trouble that the same call will meet again is
`PermanentBackendError`. Nothing else leaves an adapter, whatever its backend answers.

`temporal_fabric.testing.conformance` tries all of this on any adapter. Its faults stand at a
call's named points: the request is lost, the reply is lost, the reply is late, the reply means
nothing, nobody answers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from temporal_fabric.questions import Resolution
    from temporal_fabric.requests.models import ExecutionRequest


@dataclass(frozen=True, slots=True)
class AttemptKey:
    """What identifies an attempt everywhere: tenant, request id and epoch."""

    tenant: str
    request_id: str
    epoch: int

    def __str__(self) -> str:
        return f"{self.tenant}@{self.request_id}@{self.epoch}"


@dataclass(frozen=True, slots=True)
class Shortfall:
    """One thing a backend cannot do for a request."""

    reason: str
    """What is lacking, with what was asked for and what there is."""

    change: str
    """The smallest change of the request, or of the backend, that would mend it."""

    code: str = ""
    """Code of the error contract, where a more precise one than E_NO_BACKEND fits."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a backend could ever run a request, and everything that speaks against it."""

    shortfalls: tuple[Shortfall, ...] = ()

    @classmethod
    def of(cls, *shortfalls: Shortfall) -> Verdict:
        """Return the verdict of these shortfalls; none of them means yes."""
        return cls(shortfalls)

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.shortfalls

    @property
    def reasons(self) -> tuple[str, ...]:
        """The reasons alone."""
        return tuple(shortfall.reason for shortfall in self.shortfalls)


def _to_nobody(_: str) -> None:
    """Take what is said and do nothing with it."""


@dataclass(frozen=True, slots=True)
class AttemptSpec:
    """Everything an adapter needs to start an attempt."""

    key: AttemptKey
    request: ExecutionRequest
    folder: Path
    """Host-local folder of this attempt, created and staged by the caller."""

    checkpoints: Path
    """Folder shared by all epochs of the experiment on this host."""

    number: int
    env: dict[str, str] = field(default_factory=dict[str, str])
    """The ``FABRIC_...`` variables the payload sees, with paths of the worker's host."""

    say: Callable[[str], None] = _to_nobody
    """Takes what is being done before the payload begins, for people who wait."""

    resolutions: tuple[Resolution, ...] = ()
    """What people have answered in this run so far, to `JobStatus.question` of lower epochs too."""


class Phase(StrEnum):
    """What a backend knows of an attempt."""

    ABSENT = "ABSENT"
    RUNNING = "RUNNING"
    ENDED = "ENDED"
    LOST = "LOST"


@dataclass(frozen=True, slots=True)
class JobHandle:
    """A job on a backend."""

    key: AttemptKey
    native_id: str


@dataclass(frozen=True, slots=True)
class JobStatus:
    """One look at a job.

    ``exit_code`` is set only for a process that exited, ``signal`` only for one that was
    killed. ``reason`` names an end that the process did not choose: TIMEOUT, OOM, SETUP, LOST.
    ``message`` says more of an end; of a job that has not begun yet, what it waits for.
    """

    phase: Phase
    native_id: str = ""
    exit_code: int | None = None
    signal: int | None = None
    oom_kills: int = 0
    reason: str = ""
    message: str = ""
    started_at: float | None = None
    """Unix seconds."""

    ended_at: float | None = None
    cpu_s: float | None = None
    max_rss_bytes: int | None = None
    log_dropped_bytes: int = 0
    """What was given up of its output, under the request's limit."""
    paused: bool = False
    """Whether the whole job stands still."""

    paused_s: float = 0.0
    """Seconds it has stood still; they do not count towards the wall limit."""

    question: str = ""
    """With ENDED and a ``reason``: what only a person can say, such as whether a device acted.

    The experiment is then HELD, and goes on under a new epoch once somebody has answered."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a backend has and uses, for placement and for people."""

    name: str
    kind: str
    healthy: bool
    slots: int
    running: int
    labels: dict[str, Any] = field(default_factory=dict[str, Any])
    usd_per_hour: float | None = None
    """Price of one place; None where the backend names none."""

    unusable: str = ""
    """Why an unhealthy backend can take nothing, then a colon, then what to do."""

    warnings: tuple[str, ...] = ()
    """What weakens its promises, each with a colon and what to do; for ``doctor``."""

    about: dict[str, str] = field(default_factory=dict[str, str])
    """What it is, for people: such as version and address."""

    detail: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class CommandPiece:
    """What a command beside a payload has written since, and whether it has ended."""

    stdout: bytes = b""
    stderr: bytes = b""
    ended: bool = False
    """Whether this was the last of it."""

    exit_code: int | None = None
    signal: int | None = None
    error: str = ""
    """Why it did not start."""


class Adapter(Protocol):
    """One configured backend. See the module text for what every call promises."""

    @property
    def kind(self) -> str:
        """The kind of backend, such as ``local``."""
        ...

    @property
    def slots(self) -> int | None:
        """Attempts at once, or None where the backend has a queue of its own."""
        ...

    def get_name(self) -> str:
        """Return the backend's instance name, such as ``local@<host id>``."""
        ...

    async def can_fulfill(self, request: ExecutionRequest) -> Verdict:
        """Say whether this backend could ever run the request, and all that speaks against it.

        No effect; an answer is about the backend as it is now and reserves nothing.

        Raises:
            TransientBackendError: the backend cannot be asked now.
        """
        ...

    async def submit(self, attempt: AttemptSpec) -> JobHandle:
        """Start the attempt, or adopt it where it was started before.

        A normal return promises that the job exists, or has existed, and that the backend
        will find it by the attempt's key after any crash; not that the payload has begun. Of
        several at once one starts the job and the others adopt it. An attempt that was
        terminated or forgotten is never started: the call then fails for good, or returns and
        `find` tells that end.

        Raises:
            TransientBackendError: unknown whether the job exists: `find` before anything else.
            PermanentBackendError: the backend will never accept this attempt; no job exists.
        """
        ...

    async def find(self, key: AttemptKey) -> JobStatus:
        """Look the attempt up by its key. No effect.

        ABSENT promises that no job of this key exists; a `submit` under way may still make
        one, and only `terminate` forbids it. ENDED and LOST are final.

        Raises:
            BackendUnknown: no trustworthy answer; not a permission to create.
        """
        ...

    async def get_status(self, handle: JobHandle) -> JobStatus:
        """Return the job's state now.

        Raises:
            BackendUnknown: no trustworthy answer.
        """
        ...

    async def wait(self, handle: JobHandle, limit_s: float) -> JobStatus:
        """Return the state at the end of the job, or after ``limit_s`` seconds.

        RUNNING therefore means that the time is up. An end is told as soon as the backend
        knows it, and when what the payload wrote is in the attempt's folder: outputs, standard
        output and error, error file, telemetry and checkpoints. Called after the end, it
        carries over what is not there yet. While the job runs, the same things arrive there
        as well as the backend allows.

        Raises:
            BackendUnknown: no trustworthy answer.
        """
        ...

    def stream_logs(self, handle: JobHandle, from_offset: int = 0) -> AsyncIterator[bytes]:
        """Yield standard output from a byte offset to its present end.

        The offset counts bytes of the whole output: whoever goes on from the sum of what they
        have got loses nothing and gets nothing twice, with any adapter of the same backend. A
        job that has no output yet, or none any more, yields nothing.

        Raises:
            TransientBackendError: the output cannot be read now; what was yielded stands.
        """
        ...

    async def terminate(self, key: AttemptKey, grace_s: float) -> JobStatus:
        """Stop the attempt: SIGTERM, ``grace_s`` seconds, SIGKILL, proof.

        A normal return promises that no process of the job is left, those that ignored
        SIGTERM or left their session included, and that no `submit` starts it any more: an
        attempt that never existed is forbidden for good. Idempotent; a job that has ended by
        itself, also while this was under way, keeps its own end. The returned phase is ABSENT,
        ENDED or LOST.

        Raises:
            TransientBackendError: no proof yet: call again.
        """
        ...

    async def forget(self, key: AttemptKey) -> None:
        """Drop what the backend keeps of a committed attempt; a restart stays refused.

        Idempotent. What is kept is enough to refuse a late `submit`, for some days.

        Raises:
            TransientBackendError: the job still runs, or the backend did not answer.
        """
        ...

    async def inventory(self) -> Inventory:
        """Return capacity, use and health; ``running`` counts jobs that have not ended.

        Raises:
            TransientBackendError: the backend cannot be asked now.
        """
        ...

    async def aclose(self) -> None:
        """Release connections, files and tasks; jobs go on. Idempotent."""
        ...
