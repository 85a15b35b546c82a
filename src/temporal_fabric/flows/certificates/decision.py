"""RED, AMBER or GREEN: all findings of a stage against a profile."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from temporal_fabric.flows.certificates.profiles import ProfileName, Stage, profile_for
from temporal_fabric.flows.certificates.record import Certificate, Finding, Need, judge

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from temporal_fabric.flows.certificates.profiles import Profile, Requirement, Scheme

__all__ = ["SCHEMA_VERSION", "Colour", "Decision", "decide", "propose"]

SCHEMA_VERSION = 1
"""Of `Decision.as_json`; a key is never renamed under one version."""


class Colour(StrEnum):
    """Where a flow stands."""

    RED = "RED"
    """A requirement is not met."""

    AMBER = "AMBER"
    """Nothing speaks against it, but not everything has been looked at."""

    GREEN = "GREEN"
    """Every requirement of the stage is met."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The colour of a stage, and why."""

    colour: Colour
    profile: str
    """The profile's label: its name, and every bound that was loosened."""

    stage: Stage
    certificates: tuple[Certificate, ...]
    failing: tuple[str, ...]
    """Names of the certificates that close the gate."""

    missing: tuple[str, ...]
    """Names of what was not looked at yet."""

    claims: tuple[str, ...]
    """What may be claimed; empty before the exit, and wherever it is not GREEN."""

    @property
    def name(self) -> str:
        """The verdict with its profile: GREEN(convex)."""
        return f"{self.colour.value}({self.profile})"

    @property
    def sentences(self) -> tuple[str, ...]:
        """Why it is not GREEN: a sentence for each failing certificate."""
        return tuple(one.sentence for one in self.certificates if one.verdict.closes)

    def as_json(self) -> dict[str, Any]:
        """Return the decision with stable keys."""
        return {
            "schema_version": SCHEMA_VERSION,
            "verdict": self.name,
            "colour": self.colour.value,
            "profile": self.profile,
            "stage": self.stage.value,
            "failing": list(self.failing),
            "missing": list(self.missing),
            "claims": list(self.claims),
            "certificates": [one.as_json() for one in self.certificates],
        }


def decide(profile: Profile, findings: Iterable[Finding], stage: Stage) -> Decision:
    """Judge the findings of one stage.

    A finding that the profile does not ask for at this stage is reported and decides nothing.
    Of several findings with one name, as of several transforms, all have to hold.
    """
    pool = tuple(findings)
    certificates: list[Certificate] = []
    missing: list[str] = []
    met: list[str] = []
    for line in profile.of(stage):
        line_in_force, named = _in_force(line, pool)
        certificates += [_judged(line_in_force, one) for one in named]
        met.append(line_in_force.name)
        if not named and line_in_force.hard and not line_in_force.declared:
            missing.append(line_in_force.name)
    asked = {one.name for one in certificates} | {line.name for line in profile.requirements}
    others = (one for one in pool if one.name not in asked)
    certificates += [judge(one, None, Need.REPORT) for one in others]
    failing = tuple(dict.fromkeys(one.name for one in certificates if one.verdict.closes))
    colour = Colour.RED if failing else Colour.AMBER if missing else Colour.GREEN
    at_exit = stage is Stage.EXIT and colour is Colour.GREEN
    claims = next((profile.claims[name] for name in met if name in profile.claims), ())
    return Decision(
        colour=colour,
        profile=profile.label,
        stage=stage,
        certificates=tuple(certificates),
        failing=failing,
        missing=tuple(missing),
        claims=claims if at_exit else (),
    )


def _in_force(line: Requirement, pool: Sequence[Finding]) -> tuple[Requirement, list[Finding]]:
    """Return the requirement or, where its finding has no value, what counts instead."""
    named = [one for one in pool if one.name == line.name]
    if line.instead is None or any(one.value is not None for one in named):
        return line, named
    other = [one for one in pool if one.name == line.instead.name]
    return (line.instead, other) if other else (line, named)


def _judged(line: Requirement, finding: Finding) -> Certificate:
    if finding.relation is not line.relation:
        raise ValueError(
            f"a finding and its bound look in two directions [name={line.name},"
            f" finding={finding.relation.value}, bound={line.relation.value}]"
        )
    return judge(finding, line.bound, line.need)


_PROPOSED = (ProfileName.STRICT, ProfileName.STRONGLY_CONVEX, ProfileName.CONVEX)


def propose(findings: Iterable[Finding], scheme: Scheme) -> Decision | None:
    """Return the decision of the strongest profile that these findings prove, None for none.

    Only the classes that are told apart by their findings are tried: strict, strongly convex,
    convex, and nonconvex as the last resort. A manifold and a Hamiltonian flow are declared by
    the problem, so their one profile is tried by whoever knows that.
    """
    pool = tuple(findings)
    for name in (*_PROPOSED, ProfileName.NONCONVEX):
        try:
            profile = profile_for(name, scheme=scheme)
        except ValueError:
            continue
        decision = decide(profile, pool, Stage.BEFORE)
        if decision.colour is Colour.GREEN:
            return decision
    return None
