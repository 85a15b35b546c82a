"""What a run may do, and where its controller stands; a checkpoint has the second."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from temporal_fabric.flows.certificates.decision import Colour
from temporal_fabric.flows.commands import (
    Advance,
    Finish,
    Outcome,
    Polish,
    Question,
    finish_from_json,
    question_from_json,
    question_json,
    settings_from_json,
)
from temporal_fabric.flows.remedies import Allowed, Settings
from temporal_fabric.flows.reports import Gate
from temporal_fabric.flows.tuner import TunerPolicy, TunerState
from temporal_fabric.states import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["ControllerState", "Policy"]


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Bounds of a run; they do not change while it goes."""

    max_iterations: int = 1_000
    chunk: int = 100
    """Iterations between two looks of the controller."""

    warm_up: int = 10
    """Iterations of the descent check that a certified start must pass."""

    attempts: int = 3
    """Remediation attempts of the feasibility gate, M."""

    max_rollbacks: int = 3
    save_every: int = 1
    """Chunks between two checkpoints."""

    wall_s: float | None = None
    polish: int = 0
    """Iterations of phase 3; 0: none."""

    allowed: Allowed = field(default_factory=Allowed)
    tuner: TunerPolicy | None = None

    def as_json(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Policy:
        """Return it from plain data.

        Raises:
            KeyError, TypeError: It was not made by `as_json`.
        """
        allowed: dict[str, Any] = dict(data["allowed"])
        allowed["lenses"] = tuple(allowed["lenses"])
        made: dict[str, Any] = {
            "allowed": Allowed(**allowed),
            "tuner": None if data["tuner"] is None else TunerPolicy(**data["tuner"]),
        }
        return cls(**(dict(data) | made))


@dataclass(frozen=True, kw_only=True)
class ControllerState:
    """Everything that the next decision depends on; a checkpoint has all of it."""

    colour: Colour = Colour.RED
    phase: int = 0
    settings: Settings = field(default_factory=Settings)
    saved: Settings | None = None
    """Settings of the last good checkpoint; None where there is none."""

    saved_at: int = 0
    """Its iteration."""

    tuner: TunerState = field(default_factory=TunerState)
    tuning: bool = True
    """False once the tuner has no move or no trial left."""

    lenses: tuple[str, ...] = ()
    """The lenses left to try as a remedy, in this order; empty: those that the policy allows."""

    attempts: int = 0
    rollbacks: int = 0
    iteration: int = 0
    level: int | None = None
    chunks: int = 0
    """Since the last checkpoint."""

    untried: int = 0
    """Chunks since the last trial."""

    elapsed_s: float = 0.0
    exit: Gate | None = None
    """Of the last point that was reached by certified steps."""

    stop: str = ""
    asked: Question | None = None
    finished: Finish | None = None

    def as_json(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        return asdict(self) | {
            "colour": self.colour.value,
            "asked": question_json(self.asked) if self.asked else None,
            "exit": self.exit.as_json() if self.exit else None,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ControllerState:
        """Return the state of a checkpoint, whose question is to be asked again.

        Raises:
            KeyError, TypeError, ValueError: It was not made by `as_json`.
        """

        def maybe(name: str, read: Callable[[Any], Any]) -> Any:
            return None if data[name] is None else read(data[name])

        made: dict[str, Any] = {
            "lenses": tuple(data.get("lenses", ())),
            "colour": Colour(data["colour"]),
            "settings": settings_from_json(data["settings"]),
            "saved": maybe("saved", settings_from_json),
            "tuner": TunerState.from_json(data["tuner"]),
            "exit": maybe("exit", Gate.from_json),
            "asked": maybe("asked", question_from_json),
            "finished": maybe("finished", finish_from_json),
        }
        return cls(**(dict(data) | made))

    def reopened(self, policy: Policy) -> ControllerState:
        """Return the state to go on from where a run was stopped or out of time, else this one.

        What was proved or refuted stays so: a run that came to its own end does not go on.
        """
        ended = self.finished
        stopped = ended is not None and (
            ended.outcome is Outcome.CANCELED or ended.reason == Reason.TIMEOUT
        )
        left = policy.max_iterations - self.iteration
        if not stopped or self.saved is None or (left < 1 and not policy.polish):
            return self
        going = replace(self, stop="", finished=None)
        if left < 1:
            return replace(going, phase=3, asked=Polish(self.settings, policy.polish))
        return replace(going, asked=Advance(self.settings, min(policy.chunk, left)))
