"""What travels between the workflow of a certified flow and its activities; see `messages`.

The controller's state, policy and reports travel as the plain data that `flows` makes of them:
they are small, and are the decisions. Arrays, rows and events stay in the run's folder on the
host; a checkpoint travels as its number and digest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from temporal_fabric.messages import AttemptInput  # noqa: TC001 - Temporal reads the annotations

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class FlowRun:
    """Which attempt of which experiment a flow is."""

    attempt: AttemptInput
    workflow_id: str
    """Of the experiment."""

    run_id: str
    grace_s: float = 10.0
    """How long a stop waits for the chunk under way."""

    priority: int = 5
    patience_s: float = 3600.0
    """How long the backend's worker may leave the first activity untaken."""


@dataclass(frozen=True, slots=True)
class FlowStanding:
    """Where a flow stands between two questions."""

    policy: Json
    state: Json
    good: Json | None = None
    """The last good checkpoint by reference: number, file, size, sha256, iteration."""

    number: int = 0
    """Steps so far."""

    energy: float | None = None
    grad_norm: float | None = None


@dataclass(frozen=True, slots=True)
class FlowOpened:
    """A run was begun, or found where it goes on."""

    standing: FlowStanding | None = None
    native_id: str = ""
    at: str = ""
    reason: str = ""
    """Why it could not: a reason token."""

    message: str = ""


@dataclass(frozen=True, slots=True)
class FlowOrder:
    """What the workflow of a flow is started with, and goes on with in a new history."""

    run: FlowRun
    opened: FlowOpened | None = None
    standing: FlowStanding | None = None
    paused: bool = False


@dataclass(frozen=True, slots=True)
class FlowStep:
    """Answer the question of the controller's state."""

    run: FlowRun
    standing: FlowStanding
    native_id: str = ""


@dataclass(frozen=True, slots=True)
class FlowStepped:
    """The answer."""

    report: Json
    good: Json | None = None
    """The checkpoint that was made; None where none was."""

    energy: float | None = None
    grad_norm: float | None = None
    gives_way: bool = False
    """Whether its place is wanted for a more urgent experiment."""


@dataclass(frozen=True, slots=True)
class FlowEnd:
    """Record the end of an attempt and collect its results."""

    run: FlowRun
    standing: FlowStanding
    opened: FlowOpened
    outcome: str
    """SUCCEEDED, FAILED or CANCELED."""

    reason: str = ""
    message: str = ""
    events: list[Json] = field(default_factory=list[Json])


def shown(standing: FlowStanding) -> dict[str, Any]:
    """Return what people see of a running flow: phase, iteration, energy."""
    state, iterations = standing.state, int(standing.policy["max_iterations"])
    metrics = {"E": standing.energy, "grad_norm": standing.grad_norm}
    return {
        "state": "RUNNING",
        "stage": f"{state['colour']}, phase {state['phase']}",
        "phase": state["phase"],
        "iteration": state["iteration"],
        "step": state["iteration"],
        "progress": round(state["iteration"] / iterations, 4),
        "energy": standing.energy,
        "metrics": {name: value for name, value in metrics.items() if value is not None},
    }
