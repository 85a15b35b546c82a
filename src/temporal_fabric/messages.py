"""What travels between workflow and activities, and so stands in recorded histories.

Plain dataclasses for Temporal's default JSON converter: fields are only ever added, always
with a default, so that an older history still decodes. Ids, digests, URIs and decisions
travel; request bodies, logs and numbers do not (a body stands in history once, as input).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from temporal_fabric.outcomes import ExperimentResult  # noqa: TC001 - decoded by annotation
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

    near: bool = False
    """Whether it is asked of the one host that has the checkpoint of a flow."""


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
MOVED = "moved"
"""Of an epoch's end: its attempt saw it, a person gave their word, or it is a flow, whose only
effect is its result, and goes on elsewhere from a copy of its checkpoint."""


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
class SealInput:
    """Seal the capsule of a run and record its outcome."""

    result: ExperimentResult
    body: Any = None
    """The request body, only where no grant ever opened the request record."""

    silent: bool = False
    """Whether the host that has the run's files is silent, and another worker is asked."""

    instead: ExperimentResult | None = None
    """How the run ends without its silent host, once somebody has said that it does."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """Where the capsule lies."""

    capsule: str
    """URI; empty where it could not be sealed without the silent host that has its files."""

    manifest_sha256: str
    integrity: str = ""
    """Set where an output changed before the seal, or cannot be stored: the run then FAILED."""

    reason: str = ""
    """Reason token that goes with it; INTEGRITY where empty."""

    notify: list[NotifyRule] = field(default_factory=list[NotifyRule])
    """Of a run that was cancelled before any grant could tell them."""

    instead: bool = False
    """Whether it was sealed without its silent host: see `SealInput.instead`."""

    unnamed: str = ""
    """Targets of outputs that the silent host has sealed, and no other one could name, as prose."""


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

    silent: list[str] = field(default_factory=list[str])
    """Other hosts of the pool that did not say what they can, where no backend fits."""


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
