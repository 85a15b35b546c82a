"""What the controller is told: one report for each question it asked, and requests to stop.

Plain data of the standard library: workflow code uses it, and it travels as JSON.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from temporal_fabric.flows.certificates.decision import Colour

if TYPE_CHECKING:
    from collections.abc import Mapping

    from temporal_fabric.flows.certificates.decision import Decision

__all__ = [
    "Advanced",
    "Begin",
    "Broke",
    "Certified",
    "Failing",
    "Gate",
    "Linted",
    "Polished",
    "Report",
    "Stop",
    "Tried",
    "report_from_json",
    "report_json",
]


@dataclass(frozen=True)
class Failing:
    """A certificate that closes a gate."""

    name: str
    value: float | None
    bound: float | None
    sentence: str = ""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What the controller needs of a `certificates.decision.Decision`."""

    colour: Colour
    verdict: str
    """The colour with its profile: GREEN(convex)."""

    failing: tuple[Failing, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def opens(self) -> bool:
        """Whether everything that was asked for is met; to know nothing opens no gate."""
        return self.colour is Colour.GREEN and not self.failing and not self.missing

    @classmethod
    def of(cls, decision: Decision) -> Gate:
        """Return the gate of a decision."""
        failing = tuple(
            Failing(one.name, one.value, one.bound, one.sentence)
            for one in decision.certificates
            if one.verdict.closes
        )
        return cls(
            colour=decision.colour,
            verdict=decision.name,
            failing=failing,
            missing=decision.missing,
        )

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data; infinite values as text, which `float` reads."""
        return {
            "colour": self.colour.value,
            "verdict": self.verdict,
            "failing": [
                asdict(one) | {"value": _plain(one.value), "bound": _plain(one.bound)}
                for one in self.failing
            ],
            "missing": list(self.missing),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Gate:
        """Return it from plain data."""
        return cls(
            colour=Colour(data["colour"]),
            verdict=str(data["verdict"]),
            failing=tuple(
                Failing(one["name"], _float(one["value"]), _float(one["bound"]), one["sentence"])
                for one in data["failing"]
            ),
            missing=tuple(data["missing"]),
        )


@dataclass(frozen=True)
class Begin:
    """A run is wanted."""


@dataclass(frozen=True, kw_only=True)
class Linted:
    """The specification was read."""

    problems: tuple[str, ...] = ()
    lens: str = ""
    """As it is written."""

    family: str = ""
    lenses: tuple[str, ...] = ()
    """The lens policy's candidates, the one that fits best first; empty without a policy."""

    probes: Mapping[str, Mapping[str, float]] = field(default_factory=dict[str, Any])
    """What was measured of each candidate."""

    lambdas: tuple[float, ...] = ()
    """Factors of lambda to begin with, one for each scale; empty: as it is written."""


@dataclass(frozen=True, kw_only=True)
class Certified:
    """Everything was found out that can be known before the first step."""

    gate: Gate
    elapsed_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Advanced:
    """A chunk was run."""

    iteration: int
    gate: Gate
    """Of the steps of this chunk."""

    exit: Gate
    """Of the point where it ended."""

    level: int | None = None
    """The finest scale that moves; None without scales."""

    elapsed_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A tuner's move was made, certified anew, and followed by a short run."""

    iteration: int
    before: Gate
    """Of the problem after the move."""

    during: Gate
    """Of the steps of the validation run; GREEN is asked for here too."""

    score: float | None = None
    """What the tuner lowers, after the validation run."""

    baseline: float | None = None
    """The same after as many iterations without the move."""

    elapsed_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Polished:
    """The last steps were made: kept only where the energy fell."""

    iteration: int
    kept: bool
    gate: Gate
    exit: Gate
    elapsed_s: float = 0.0


@dataclass(frozen=True)
class Broke:
    """A question could not be answered: an exception, a lost device, a full disk."""

    message: str


@dataclass(frozen=True)
class Stop:
    """Somebody wants the run to end; taken up with the next report."""

    why: str = "cancelled"


Report = Begin | Linted | Certified | Advanced | Tried | Polished | Broke | Stop

_ANSWERS: dict[str, type[Report]] = {
    one.__name__.lower(): one for one in (Linted, Certified, Advanced, Tried, Polished, Broke)
}
_LISTS = ("problems", "lenses", "lambdas")
_GATES = ("gate", "exit", "before", "during")


def report_json(report: Report) -> dict[str, Any]:
    """Return an answer as plain data."""
    given = asdict(report)
    gates = {name: getattr(report, name).as_json() for name in _GATES if name in given}
    return {"report": type(report).__name__.lower(), **given, **gates}


def report_from_json(data: Mapping[str, Any]) -> Report:
    """Return an answer from plain data.

    Raises:
        KeyError: It is none.
    """
    given: dict[str, Any] = {name: value for name, value in data.items() if name != "report"}
    for name in _GATES:
        if name in given:
            given[name] = Gate.from_json(given[name])
    for name in _LISTS:
        if name in given:
            given[name] = tuple(given[name])
    return _ANSWERS[data["report"]](**given)


def _plain(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)


def _float(value: float | str | None) -> float | None:
    return None if value is None else float(value)
