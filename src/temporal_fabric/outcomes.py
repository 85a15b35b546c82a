"""How attempts and experiments end: what activities, the workflow and the client hand on.

These stand in recorded histories: fields are added, with defaults, and never taken away.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from temporal_fabric.display import table
from temporal_fabric.questions import Resolution


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

    gpus: list[str] = field(default_factory=list[str])
    """UUIDs of the devices that were its own; empty where it asked for none."""


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
