"""A finding, the bound it is held against, and the certificate that results.

Four kinds of knowledge, and one rule. R is proved up to rounding; P is proved with a stated
probability; M was measured on this very run; E is an estimate. Only R, or P whose delta is at
most 1e-6, may open a gate. An estimate may close a gate, and never opens one.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

__all__ = [
    "LARGEST_DELTA",
    "Certificate",
    "Finding",
    "Kind",
    "Need",
    "Relation",
    "Verdict",
    "judge",
]

LARGEST_DELTA = 1e-6
"""Largest probability of error with which a probabilistic bound still opens a gate."""


class Kind(StrEnum):
    """How a value is known."""

    RIGOROUS = "R"
    PROBABLE = "P"
    MEASURED = "M"
    ESTIMATE = "E"


class Relation(StrEnum):
    """On which side of its bound a value has to be."""

    AT_MOST = "<="
    AT_LEAST = ">="


class Need(StrEnum):
    """What a profile asks of a finding."""

    PROOF = "proof"
    """It opens the gate: proved, and on the right side of its bound."""

    WATCH = "watch"
    """It keeps the gate open: there, and not on the wrong side of its bound."""

    REPORT = "report"
    """It is shown, and decides nothing."""


class Verdict(StrEnum):
    """What became of a finding."""

    PASS = "PASS"  # noqa: S105 - not a password
    """Proved, and on the right side of its bound. The only verdict that opens a gate."""

    HELD = "HELD"
    """Measured or estimated, and on the right side of its bound: nothing speaks against it."""

    UNPROVEN = "UNPROVEN"
    """On the right side of its bound, where a proof was needed and there is none."""

    ABSENT = "ABSENT"
    """There is no value, where one was needed."""

    FAIL = "FAIL"
    """On the wrong side of its bound, or not a number."""

    REPORTED = "REPORTED"
    """Shown only."""

    @property
    def closes(self) -> bool:
        """Whether a gate that needs this finding stays closed."""
        return self in {Verdict.UNPROVEN, Verdict.ABSENT, Verdict.FAIL}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one certificate family found, before anybody asked whether it is good enough."""

    name: str
    """Name of the quantity; the key of the bounds of a profile."""

    value: float | None
    """The number, None where it could not be had. A proved bound has its rounding added."""

    kind: Kind
    """How it is known."""

    method: str
    """How it was computed, in a few words."""

    found: str
    """What was found, as the first clause of a sentence."""

    meaning: str = ""
    """What it means when the bound is not met."""

    remedy: str = ""
    """What to change when the bound is not met."""

    delta: float = 0.0
    """Probability that a probable value is on the wrong side."""

    error: float = 0.0
    """What was added to or taken from the value for rounding and truncation."""

    relation: Relation = Relation.AT_MOST
    """On which side of a bound the value has to be."""

    @property
    def proves(self) -> bool:
        """Whether this kind of knowledge may open a gate."""
        if self.kind is Kind.PROBABLE:
            return 0.0 <= self.delta <= LARGEST_DELTA
        return self.kind is Kind.RIGOROUS


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """A finding with its bound and its verdict."""

    name: str
    value: float | None
    bound: float | None
    relation: Relation
    kind: Kind
    delta: float
    method: str
    error: float
    verdict: Verdict
    sentence: str

    def as_json(self) -> dict[str, Any]:
        """Return the record with stable keys; infinities as "inf" and "-inf", never NaN."""
        return {key: _plain(value) for key, value in asdict(self).items()}


def judge(finding: Finding, bound: float | None, need: Need) -> Certificate:
    """Hold a finding against a bound.

    Args:
        finding: What was found.
        bound: What is asked for; None where nothing is.
        need: Whether it has to be proved, only not to be violated, or is only shown.
    """
    value = finding.value
    number = value is None or not math.isnan(value)
    verdict = _verdict(finding, bound, need) if number else Verdict.FAIL
    return Certificate(
        name=finding.name,
        value=value if number else None,
        bound=bound,
        relation=finding.relation,
        kind=finding.kind,
        delta=finding.delta,
        method=finding.method,
        error=finding.error if math.isfinite(finding.error) else 0.0,
        verdict=verdict,
        sentence=_sentence(finding, bound, verdict),
    )


def _verdict(finding: Finding, bound: float | None, need: Need) -> Verdict:
    if need is Need.REPORT or bound is None:
        return Verdict.REPORTED
    if finding.value is None:
        return Verdict.ABSENT
    at_most = finding.relation is Relation.AT_MOST
    met = finding.value <= bound if at_most else finding.value >= bound
    if not met:
        return Verdict.FAIL
    if finding.proves:
        return Verdict.PASS
    return Verdict.UNPROVEN if need is Need.PROOF else Verdict.HELD


_WHY = {
    Verdict.UNPROVEN: "It meets the bound, but {kind} opens no gate.",
    Verdict.ABSENT: "Without a value the gate stays closed.",
}
_KINDS = {
    Kind.RIGOROUS: "a proof",
    Kind.PROBABLE: "a bound with so large a probability of error",
    Kind.MEASURED: "a measurement",
    Kind.ESTIMATE: "an estimate",
}


def _sentence(finding: Finding, bound: float | None, verdict: Verdict) -> str:
    asked = ""
    if bound is not None and verdict is not Verdict.REPORTED:
        side = "at most" if finding.relation is Relation.AT_MOST else "at least"
        asked = f"; {side} {bound:.4g} is asked for"
    parts = [f"{finding.found}{asked}."]
    if verdict.closes:
        parts.append(_WHY.get(verdict, "").format(kind=_KINDS[finding.kind]))
        parts += [f"{part}." for part in (finding.meaning, finding.remedy) if part]
    return " ".join(part for part in parts if part)


def _plain(value: Any) -> Any:
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return value
