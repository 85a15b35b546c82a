"""What travels between workflow and activities, and so stands in recorded histories.

Plain dataclasses for Temporal's default JSON converter: fields are only ever added, always
with a default, so that an older history still decodes. Ids, digests, URIs and decisions
travel; request bodies, logs and numbers do not (a body stands in history once, as input).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from temporal_fabric.display import table
from temporal_fabric.questions import Resolution


@dataclass(frozen=True, slots=True)
class RetryRule:
    """When a failed payload is tried again; the request's ``retry`` block."""

    max_attempts: int = 1
    initial_interval_s: float = 1.0
    backoff: float = 2.0
    max_interval_s: float = 300.0
    on: list[str] | None = None
    """Reason tokens that are retried; None means any reason, LOST excepted."""


@dataclass(frozen=True, slots=True)
class CompensationRule:
    """What undoes an effect of the payload; an entry of the request's ``rollback``."""

    name: str
    max_attempts: int = 1
    hold: bool = False
    """Whether a person is asked once it has failed."""


@dataclass(frozen=True, slots=True)
class NotifyRule:
    """Who is told of which moments; an entry of the request's ``notify``."""

    url: str
    on: list[str] = field(default_factory=list[str])
    """States, the request's ``ended`` written out."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One receiver is told of one moment of one run."""

    url: str
    tenant: str
    request_id: str
    run_id: str
    number: int
    """Place of the moment in the run's timeline, from 1 on."""

    state: str
    at: str
    reason: str = ""
    message: str = ""
    backend: str = ""
    epoch: int = 0
    capsule: str = ""
    """URI of the capsule, once it is sealed."""


@dataclass(frozen=True, slots=True)
class PriorEpoch:
    """An epoch of an earlier run that is not yet proven absent."""

    epoch: int
    backend: str


@dataclass(frozen=True, slots=True)
class Grant:
    """A placement: what `acquire` decided, under which epoch, and why."""

    tenant: str
    request_id: str
    digest: str
    epoch: int
    backend: str
    kind: str
    capsule: str
    """URI the run's capsule will have once it is sealed."""

    reason: str = ""
    """Why this backend, or why the place is still waiting."""

    retry: RetryRule = field(default_factory=RetryRule)
    grace_s: float = 10.0
    priority: int = 5
    tags: list[str] = field(default_factory=list[str])
    name: str = ""
    search_attributes: bool = False
    """Whether the namespace knows our search attributes."""

    prior: list[PriorEpoch] = field(default_factory=list[PriorEpoch])
    changes: list[str] = field(default_factory=list[str])
    """What this attempt asks for beyond the request, because of how others failed."""

    deadline: str = ""
    """When the run must have ended; empty for never."""

    denied: str = ""
    """Why there is no place and will be none: the run ends."""

    denied_reason: str = ""
    """Reason token that goes with it; the last attempt's own where empty."""

    pausable: bool = False
    """Whether the backend can let a running payload stand still."""

    recorded: ExperimentResult | None = None
    """The result of an earlier, finished run of the same request: nothing is to be done."""

    patience_s: float = 3600.0
    """How long the backend's worker may leave the attempt untaken before the pool is asked."""

    notify: list[NotifyRule] = field(default_factory=list[NotifyRule])
    lost_after_s: float | None = None
    """How long the backend may be silent before a person is asked; None, by older workers, for
    ever: their attempts claim no start, so nothing may be revoked either."""

    rollback: list[CompensationRule] = field(default_factory=list[CompensationRule])
    declared_outputs: int = 0
    """How many outputs must be there and hashed before anything is a success."""


@dataclass(frozen=True, slots=True)
class AcquireInput:
    """Ask for a place. ``number`` counts the grants of one run, so that a retry is the same."""

    body: Any
    number: int = 1
    memo_digest: str = ""
    held: Grant | None = None
    """The place already held, when its backend did not answer in time."""

    retry_of: str = ""
    """Run id whose recorded failure this run retries on purpose."""

    failures: list[str] = field(default_factory=list[str])
    """Why the run's attempts have failed so far: `retry.on` may ask for more after them."""

    priority: int = 0
    """1 to 10 where somebody has changed it; 0 for the request's own."""

    submitted: str = ""
    """When the run began, from which a deadline may count."""

    waited_s: float = 0.0
    """How long this place has been waited for already, pauses left out."""

    since: str = ""
    """When this wait for a place began; it keeps its place in line however often it asks."""

    reset: bool = False
    """Whether this run came from a reset, and so repeats what is recorded on purpose."""

    compensation: str = ""
    """Name of the compensation that needs the place; empty for the payload."""

    avoided: list[str] = field(default_factory=list[str])
    """Backends that were silent: taken last, by when they must have a worker again."""


@dataclass(frozen=True, slots=True)
class AttemptInput:
    """Run, or adopt, one attempt."""

    tenant: str
    request_id: str
    digest: str
    epoch: int
    backend: str
    number: int
    failures: list[str] = field(default_factory=list[str])
    """As in `AcquireInput`: the attempt makes the same request."""

    deadline: str = ""
    changes: list[str] = field(default_factory=list[str])
    """As in `Grant`; kept with the result."""

    resolutions: list[Resolution] = field(default_factory=list[Resolution])
    """What people have answered in this run so far."""

    compensation: str = ""
    """Name of the compensation that is run; empty for the payload."""

    because: str = ""
    """Why it is: the reason of the failure, or ``CANCELED``."""

    was_silent: bool = False
    """Whether the backend has left it untaken before: then its return is told at once."""


@dataclass(frozen=True, slots=True)
class OutputFile:
    """One output as it was when the attempt ended."""

    path: str
    size: int
    sha256: str
    target_uri: str = ""
    """Where it is stored besides the capsule."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """One input as the payload found it."""

    path: str
    """Relative to ``FABRIC_INPUT_DIR``."""

    uri: str
    size: int
    """Bytes; of a folder, of all its files."""

    sha256: str
    """Hex digest; of a folder, of its lines ``<sha256>  <path>`` sorted by path."""

    tenant: str = ""
    """Of the experiment it came from, for ``capsule://``."""

    request_id: str = ""
    capsule: str = ""
    """URI of the capsule it was copied from."""


@dataclass(frozen=True, slots=True)
class CertificateLine:
    """One certificate of a flow against its bound."""

    stage: str
    """``before``, ``during`` or ``exit``."""

    name: str
    verdict: str
    value: float | str | None = None
    """Text where it is infinite."""

    relation: str = ""
    bound: float | str | None = None
    kind: str = ""
    """R, P, M or E: how the value is known."""

    sentence: str = ""
    """Why, and what to change, where it closes a gate."""


@dataclass(frozen=True, slots=True)
class FlowOutcome:
    """What a certified flow came to."""

    verdict: str
    """The colour with its profile: GREEN(convex)."""

    iteration: int = 0
    energy: float | None = None
    sha256: str = ""
    """Of the final state's arrays, slot by slot; empty where no step was certified."""

    certificates: list[CertificateLine] = field(default_factory=list[CertificateLine])


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """How one attempt ended. A payload's failure is a value, never an exception."""

    epoch: int
    backend: str
    ok: bool
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    signal: int | None = None
    native_id: str = ""
    started_at: str = ""
    ended_at: str = ""
    stderr_excerpt: str = ""
    oom_kills: int = 0
    cpu_s: float | None = None
    max_rss_bytes: int | None = None
    changes: list[str] = field(default_factory=list[str])
    """What it asked for beyond the request, because of how others failed."""

    paused_s: float = 0.0
    """Seconds it stood still; they do not count towards the wall limit."""

    outputs: list[OutputFile] = field(default_factory=list[OutputFile])
    inputs: list[InputFile] = field(default_factory=list[InputFile])
    collecting_at: str = ""
    """When the payload's end was known; with ``started_at`` it tells what no signal told."""

    log_dropped_bytes: int = 0
    """What was given up of standard output and error, under ``limits.log_bytes``."""

    question: str = ""
    """What only a person can say: the experiment is HELD until they do. Nothing runs."""

    answer: str = ""
    """What a person said of this attempt; who, and why, stands in the run's `resolutions`."""

    flow: FlowOutcome | None = None
    """Of a certified flow."""


@dataclass(frozen=True, slots=True)
class AttemptUpdate:
    """The ``attempt`` signal: sent once RUNNING or COLLECTING lasts, nothing else."""

    state: str
    at: str
    native_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class AbsentInput:
    """Prove that nothing of one epoch runs, and that it never will."""

    tenant: str
    request_id: str
    epoch: int
    backend: str
    grace_s: float = 10.0


@dataclass(frozen=True, slots=True)
class SettleInput:
    """Settle an epoch whose backend is silent."""

    tenant: str
    request_id: str
    epoch: int
    backend: str
    silent_s: float
    """How long its worker has left its work untaken."""

    resolution: Resolution | None = None
    """What a person says of it; without, it is revoked if it was never started."""


@dataclass(frozen=True, slots=True)
class SettleAnswer:
    """How an epoch stands after `settle`."""

    how: str


BUSY = "busy"
"""The backend has a worker, which comes to it in time."""

STARTED = "started"
REVOKED = "revoked"
"""Of an epoch's start: the attempt claims the one before its first effect, who finds the
backend silent the other; the first of them stands."""

ENDED = "ended"
RESOLVED = "resolved"
"""Of an epoch's end: its attempt saw it, or a person gave their word."""


@dataclass(frozen=True, slots=True)
class ControlInput:
    """Act on the live payload of one epoch."""

    tenant: str
    request_id: str
    epoch: int
    backend: str
    action: str
    """``pause`` or ``resume``."""


@dataclass(frozen=True, slots=True)
class ControlAnswer:
    """What is so after `control`."""

    live: bool
    """False where the payload has ended, or never was."""

    paused: bool
    at: str


@dataclass(frozen=True, slots=True)
class Moment:
    """One entry of an experiment's timeline."""

    state: str
    at: str
    reason: str = ""
    backend: str = ""
    epoch: int = 0
    message: str = ""
    """What a person is asked, or has answered."""


@dataclass(frozen=True, slots=True)
class Compensated:
    """What became of one compensation."""

    name: str
    ok: bool
    attempts: list[AttemptResult] = field(default_factory=list[AttemptResult])


@dataclass(frozen=True, slots=True)
class ExperimentResult:
    """The terminal record of an experiment.

    It is the workflow's result, ``result.json`` in the capsule and what the client returns.
    """

    state: str
    tenant: str = ""
    request_id: str = ""
    digest: str = ""
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    signal: int | None = None
    stderr_excerpt: str = ""
    backend: str = ""
    epoch: int = 0
    started_at: str = ""
    ended_at: str = ""
    capsule: str = ""
    outputs: list[OutputFile] = field(default_factory=list[OutputFile])
    attempts: list[AttemptResult] = field(default_factory=list[AttemptResult])
    timeline: list[Moment] = field(default_factory=list[Moment])
    resolutions: list[Resolution] = field(default_factory=list[Resolution])
    """What people answered while it was HELD."""

    compensations: list[Compensated] = field(default_factory=list[Compensated])
    """What was done to undo the payload's effects, in the order it was done."""

    @property
    def epochs(self) -> set[int]:
        """Every epoch that may have left files: of attempts, and of compensations."""
        undone = [ended for done in self.compensations for ended in done.attempts]
        return {ended.epoch for ended in [*self.attempts, *undone]} | {self.epoch}

    def _repr_html_(self) -> str:
        names = ("request_id", "state", "reason", "message", "exit_code", "backend", "capsule")
        rows = [(name, getattr(self, name)) for name in (*names, "started_at", "ended_at")]
        outputs = ", ".join(output.path for output in self.outputs)
        return table("result", [*rows, ("outputs", outputs), ("attempts", len(self.attempts))])


@dataclass(frozen=True, slots=True)
class SealInput:
    """Seal the capsule of a run and record its outcome."""

    result: ExperimentResult
    body: Any = None
    """The request body, only where no grant ever opened the request record."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """Where the capsule lies."""

    capsule: str
    manifest_sha256: str
    integrity: str = ""
    """Set where an output changed before the seal, or cannot be stored: the run then FAILED."""

    reason: str = ""
    """Reason token that goes with it; INTEGRITY where empty."""

    notify: list[NotifyRule] = field(default_factory=list[NotifyRule])
    """Of a run that was cancelled before any grant could tell them."""


@dataclass(frozen=True, slots=True)
class BackendVerdict:
    """What one backend says of a request."""

    backend: str
    ok: bool
    reasons: list[str] = field(default_factory=list[str])
    changes: list[str] = field(default_factory=list[str])
    """For each reason the smallest change that would mend it."""

    codes: list[str] = field(default_factory=list[str])
    """For each reason the error code that fits it; empty stands for E_NO_BACKEND."""

    used: int = 0
    slots: int | None = None
    """Places in all; None where the backend has a queue of its own."""

    drained: str = ""
    """Since when it grants nothing new, and why; empty where it does."""


@dataclass(frozen=True, slots=True)
class PlanAnswer:
    """Where a request would run now, and why not elsewhere."""

    backend: str
    """The backend that would be taken; empty where none could ever run it."""

    verdicts: list[BackendVerdict] = field(default_factory=list[BackendVerdict])
    nearest_change: str = ""
    counted: bool = False
    """Whether the tenant's limits were asked about: then it says nothing of the next request."""
    store: str = ""
    """URI of the worker's store, where it expects what a request brings along."""


EVENTS = "events"
"""Stream of a running attempt's events."""

SEALED_EVENTS = "events.parquet"
"""Stream of the events in a capsule, all epochs together."""


@dataclass(frozen=True, slots=True)
class ReadInput:
    """Ask a host for a piece of what a payload wrote."""

    tenant: str
    request_id: str
    epoch: int
    stream: str
    """``stdout``, ``stderr``, `EVENTS` or `SEALED_EVENTS`."""

    offset: int = 0
    """Byte to start at; of `EVENTS` the number of the last line already had."""

    wait: bool = True
    """Whether to wait up to 20 s for something new."""


@dataclass(frozen=True, slots=True)
class ReadAnswer:
    """A piece of a log."""

    data: str
    """Base64: a log is bytes, and a piece may end inside a character."""

    next_offset: int
    found: bool = True
    """False where the host has no such log: not started yet, or sealed meanwhile."""
