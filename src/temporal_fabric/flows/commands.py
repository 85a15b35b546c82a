"""What the controller asks for, in the order to do it in.

Records, a restore and a save come first; the last command of an answer is the question that the
next report answers, or the finish.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from temporal_fabric.flows.remedies import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from temporal_fabric.flows.run_events import RunEvent

__all__ = [
    "Advance",
    "Certify",
    "Command",
    "Finish",
    "Lint",
    "Outcome",
    "Polish",
    "Question",
    "Record",
    "Restore",
    "Save",
    "Try",
    "finish_from_json",
    "question_from_json",
    "question_json",
    "settings_from_json",
]


class Outcome(StrEnum):
    """How a run ends."""

    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


@dataclass(frozen=True)
class Record:
    """Write an event down."""

    event: RunEvent
    payload: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Restore:
    """Go back to the last good checkpoint, or to the start."""

    start: bool = False


@dataclass(frozen=True)
class Save:
    """Make a checkpoint with the controller's state and make it the last good one."""


@dataclass(frozen=True)
class Lint:
    """Read the specification and report its problems."""


@dataclass(frozen=True)
class Certify:
    """Find out what can be known before the first step."""

    settings: Settings


@dataclass(frozen=True)
class Advance:
    """Run a chunk."""

    settings: Settings
    iterations: int


@dataclass(frozen=True)
class Try:
    """Make a move, certify it, and run it for a short while."""

    settings: Settings
    iterations: int


@dataclass(frozen=True)
class Polish:
    """Make the last steps: damped leapfrog, or plain ones in float64."""

    settings: Settings
    iterations: int


@dataclass(frozen=True)
class Finish:
    """The run is over."""

    outcome: Outcome
    reason: str = ""
    """A reason token of `states.Reason`; empty where it succeeded."""

    message: str = ""


Question = Lint | Certify | Advance | Try | Polish
Command = Record | Restore | Save | Question | Finish

_QUESTIONS: dict[str, type[Advance | Try | Polish]] = {
    "advance": Advance,
    "try": Try,
    "polish": Polish,
}


def question_json(question: Question) -> dict[str, Any]:
    """Return a question as plain data."""
    return {"ask": type(question).__name__.lower(), **asdict(question)}


def question_from_json(data: Mapping[str, Any]) -> Question:
    """Return a question from plain data.

    Raises:
        KeyError: It is none.
    """
    if data["ask"] == "lint":
        return Lint()
    settings = settings_from_json(data["settings"])
    if data["ask"] == "certify":
        return Certify(settings)
    return _QUESTIONS[data["ask"]](settings, int(data["iterations"]))


def settings_from_json(data: Mapping[str, Any]) -> Settings:
    """Return settings from plain data."""
    return Settings(
        lens=str(data["lens"]),
        mu=float(data["mu"]),
        halvings=int(data["halvings"]),
        lambdas=tuple(float(x) for x in data["lambdas"]),
    )


def finish_from_json(data: Mapping[str, Any]) -> Finish:
    """Return a finish from plain data."""
    return Finish(Outcome(data["outcome"]), str(data["reason"]), str(data["message"]))
