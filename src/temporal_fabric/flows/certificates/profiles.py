"""Profiles: which findings a flow needs, with which bounds, and what it may then claim.

The user chooses a profile; the engine never changes it, and every verdict names it. `strict` is
the default. It asks for diagonal dominance and a positive least eigenvalue, which no wide blur
and no underdetermined problem has; `convex` asks for neither, proves the objective by a duality
gap instead, and claims less.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from temporal_fabric.flows.certificates.record import Need, Relation

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ALLOWED",
    "DEFAULT",
    "Profile",
    "ProfileName",
    "Requirement",
    "Scheme",
    "Stage",
    "profile_for",
]


class ProfileName(StrEnum):
    """Classes of problems, from the most to the least that can be claimed."""

    STRICT = "strict"
    STRONGLY_CONVEX = "strongly_convex"
    CONVEX = "convex"
    NONCONVEX = "nonconvex"
    MANIFOLD = "manifold"
    HAMILTONIAN = "hamiltonian"


DEFAULT = ProfileName.STRICT


class Scheme(StrEnum):
    """Families of steps: each has its own condition on the step size and its own descent."""

    GRADIENT = "gradient"
    PROXIMAL = "proximal"
    ACCELERATED = "accelerated"
    PRECONDITIONED = "preconditioned"
    PRIMAL_DUAL = "primal_dual"
    HAMILTONIAN_DAMPED = "hamiltonian_damped"


class Stage(StrEnum):
    """When a requirement is asked for."""

    BEFORE = "before"
    """Before the first step: the gate to GREEN."""

    DURING = "during"
    """After every chunk: keeps GREEN."""

    EXIT = "exit"
    """At the end: decides what may be claimed."""


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """One line of a profile."""

    name: str
    """Name of the finding."""

    stage: Stage
    need: Need
    bound: float | None = None
    relation: Relation = Relation.AT_MOST

    declared: bool = False
    """Asked for only where the problem declares it: no such finding, no requirement."""

    instead: Requirement | None = None
    """What counts when the finding has no value; the claims are then those of its name."""

    @property
    def hard(self) -> bool:
        """Whether it can close a gate."""
        return self.need is not Need.REPORT


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A named set of requirements, and the claims that meeting them allows."""

    name: ProfileName
    requirements: tuple[Requirement, ...]

    claims: Mapping[str, tuple[str, ...]]
    """Claims by the name of the exit requirement that was met."""

    loosened: tuple[str, ...] = ()
    """Bounds that the user made easier to meet, as written in the label."""

    @property
    def label(self) -> str:
        """The name as verdicts show it, with every loosened bound."""
        return ", ".join((self.name.value, *self.loosened))

    def of(self, stage: Stage) -> tuple[Requirement, ...]:
        """Return the requirements of a stage."""
        return tuple(line for line in self.requirements if line.stage is stage)

    def bound(self, name: str) -> float | None:
        """Return the bound of a finding; None where the profile has none."""
        return next((line.bound for line in self.requirements if line.name == name), None)

    def with_bounds(self, bounds: Mapping[str, float]) -> Profile:
        """Return the profile with other bounds; those made easier to meet show in the label.

        Raises:
            ValueError: A name that has no bound in this profile.
        """
        known = {line.name for line in self.requirements if line.bound is not None}
        unknown = sorted(set(bounds) - known)
        if unknown:
            raise ValueError(
                f"no bound of that name [profile={self.name.value}, unknown={', '.join(unknown)}];"
                f" there are: {', '.join(sorted(known))}"
            )
        lines = tuple(
            replace(line, bound=bounds[line.name]) if line.name in bounds else line
            for line in self.requirements
        )
        pairs = zip(self.requirements, lines, strict=True)
        eased = [new for old, new in pairs if old.hard and _easier(old, new)]
        words = (f"{line.name}{line.relation.value}{line.bound:g}" for line in eased)
        return replace(self, requirements=lines, loosened=(*self.loosened, *words))


def _easier(old: Requirement, new: Requirement) -> bool:
    if old.bound is None or new.bound is None or old.bound == new.bound:
        return False
    return (new.bound > old.bound) == (old.relation is Relation.AT_MOST)


ALLOWED: dict[ProfileName, frozenset[Scheme]] = {
    **dict.fromkeys(
        (ProfileName.STRICT, ProfileName.STRONGLY_CONVEX, ProfileName.CONVEX),
        frozenset(Scheme) - {Scheme.HAMILTONIAN_DAMPED},
    ),
    ProfileName.NONCONVEX: frozenset(
        {Scheme.GRADIENT, Scheme.PROXIMAL, Scheme.ACCELERATED, Scheme.PRECONDITIONED}
    ),
    ProfileName.MANIFOLD: frozenset({Scheme.GRADIENT, Scheme.PROXIMAL}),
    ProfileName.HAMILTONIAN: frozenset({Scheme.HAMILTONIAN_DAMPED}),
}
"""The schemes that have a descent theorem under each profile."""


def profile_for(
    name: ProfileName = DEFAULT,
    *,
    scheme: Scheme = Scheme.PROXIMAL,
    dtype: str = "float64",
    polished: bool = False,
) -> Profile:
    """Return the default profile of a name.

    Args:
        name: The class that is claimed.
        scheme: The step that will run; it decides the step condition.
        dtype: Dtype of the flow. A gap below the floor of float32 is not asked of float32.
        polished: Whether float64 steps follow a float32 flow before the gap is taken.

    Raises:
        ValueError: The scheme has no descent theorem under this profile.
    """
    if scheme not in ALLOWED[name]:
        allowed = ", ".join(sorted(one.value for one in ALLOWED[name]))
        raise ValueError(
            f"this scheme has no descent theorem here [profile={name.value},"
            f" scheme={scheme.value}]; use one of: {allowed}"
        )
    single = dtype == "float32"
    lines = (
        *_sanity(single=single),
        *_steps(name, scheme),
        *_spectrum(name),
        *_kept(name),
        *_exit(name, gap=(1e-4 if polished else 1e-2) if single else 1e-6),
    )
    return Profile(name=name, requirements=lines, claims=_CLAIMS[name])


def _line(name: str, stage: Stage, bound: float, **more: Any) -> Requirement:
    return replace(Requirement(name=name, stage=stage, need=Need.PROOF, bound=bound), **more)


def _report(name: str, bound: float, relation: Relation = Relation.AT_MOST) -> Requirement:
    return _line(name, Stage.BEFORE, bound, need=Need.REPORT, relation=relation)


def _sanity(*, single: bool) -> tuple[Requirement, ...]:
    return (
        _line("lint", Stage.BEFORE, 0.0),
        _line("finite", Stage.BEFORE, 0.0),
        _line("adjoint", Stage.BEFORE, 1e-5 if single else 1e-12),
        _line("transform", Stage.BEFORE, 1e-6),
    )


def _steps(name: ProfileName, scheme: Scheme) -> tuple[Requirement, ...]:
    before = Stage.BEFORE
    beta = Requirement(name="beta_up", stage=before, need=Need.REPORT)
    if name is ProfileName.MANIFOLD:
        armijo = _line("armijo", before, 1.0, need=Need.WATCH)
        return (beta, _line("manifold_step", before, 1.9, instead=armijo))
    if scheme is Scheme.PRECONDITIONED:
        return (beta, _line("preconditioner", before, 1.9), _line("prox_metric", before, 0.0))
    if scheme is Scheme.PRIMAL_DUAL:
        return (beta, _line("primal_dual_step", before, 1.0))
    largest = {Scheme.ACCELERATED: 1.0, Scheme.HAMILTONIAN_DAMPED: 3.6}.get(scheme, 1.9)
    step = (beta, _line("step", before, largest))
    if name is ProfileName.NONCONVEX and scheme is Scheme.ACCELERATED:
        return (*step, _line("momentum", before, 1.0))
    return step


_LEAST_CURVATURE = {
    ProfileName.STRICT: 1e-6,
    ProfileName.STRONGLY_CONVEX: 1e-6,
    ProfileName.CONVEX: 0.0,
    ProfileName.HAMILTONIAN: 0.0,
}


def _spectrum(name: ProfileName) -> tuple[Requirement, ...]:
    """Return the seed's two gates; they are hard where the class of the profile needs them."""
    before, least = Stage.BEFORE, Relation.AT_LEAST
    strict = name is ProfileName.STRICT
    dominance = _line("eta_dd", before, 0.9) if strict else _report("eta_dd", 0.9)
    gamma = _LEAST_CURVATURE.get(name)
    if gamma is None:
        return (dominance, _report("gamma_low", 0.0, least), _report("gamma_est", 0.0, least))
    watch = {"need": Need.WATCH, "relation": least, "declared": True}
    return (
        dominance,
        _line("gamma_low", before, gamma, relation=least),
        _line("gamma_est", before, gamma, **watch),
    )


def _kept(name: ProfileName) -> tuple[Requirement, ...]:
    watch = {"need": Need.WATCH}
    descent = "shadow_energy" if name is ProfileName.HAMILTONIAN else "descent"
    declared = ("physics", "refinement", "holdout")
    lines = [
        _line("existence", Stage.BEFORE, 1.0, relation=Relation.AT_LEAST),
        _line(descent, Stage.DURING, 1.0, **watch),
        _line("finite", Stage.DURING, 0.0),
        _line("invariants", Stage.DURING, 1.0, **watch, declared=name is not ProfileName.MANIFOLD),
        *(_line(one, Stage.EXIT, 1.0, **watch, declared=True) for one in declared),
    ]
    if name is not ProfileName.MANIFOLD:
        lines.insert(2, _line("beta_k", Stage.DURING, 1.0, **watch))
    return tuple(lines)


def _exit(name: ProfileName, *, gap: float) -> tuple[Requirement, ...]:
    stationary = _line("kkt", Stage.EXIT, 1e-5)
    if name is ProfileName.NONCONVEX:
        return (stationary,)
    if name is ProfileName.MANIFOLD:
        return (stationary, _line("feasibility", Stage.EXIT, 1e-6))
    if name is ProfileName.HAMILTONIAN:
        watch = {"need": Need.WATCH}
        return (
            stationary,
            _line("rest", Stage.EXIT, 1e-5),
            _line("energy_order", Stage.EXIT, 1.0, **watch),
            _line("reversal", Stage.EXIT, 1.0, **watch),
        )
    return (_line("gap", Stage.EXIT, gap, instead=stationary),)


_DOWNGRADED = (
    "the point is stationary to the tolerance",
    "no duality gap was available: nothing is claimed about the objective",
)
_STRONG = (
    "the minimiser is unique",
    "the objective is within the gap of its minimum",
    "the distance to the minimiser is at most |G|/gamma",
    "with alpha = 1/beta_up the error falls at least by 1 - gamma/beta_up a step",
)
_OBJECTIVE = (
    "the objective is within the gap of its minimum",
    "the minimiser may be not unique; no distance to it, or to the truth, is claimed",
    "plain steps converge as O(1/k), accelerated ones as O(1/k^2)",
)
_CLAIMS: dict[ProfileName, dict[str, tuple[str, ...]]] = {
    ProfileName.STRICT: {
        "gap": (*_STRONG, "scales are coupled by at most the bound of eta_dd"),
        "kkt": (_STRONG[0], _STRONG[2], *_DOWNGRADED),
    },
    ProfileName.STRONGLY_CONVEX: {
        "gap": _STRONG,
        "kkt": (_STRONG[0], _STRONG[2], *_DOWNGRADED),
    },
    ProfileName.CONVEX: {"gap": _OBJECTIVE, "kkt": (*_DOWNGRADED, _OBJECTIVE[1])},
    ProfileName.NONCONVEX: {
        "kkt": (
            "the point is stationary to the tolerance",
            "it may be a local minimiser or a saddle; no global claim",
        ),
    },
    ProfileName.MANIFOLD: {
        "kkt": (
            "the point is on the manifold and stationary there, to the tolerances",
            "it may be a local minimiser or a saddle; no global claim",
        ),
    },
    ProfileName.HAMILTONIAN: {
        "kkt": (
            "the system has come to rest at a stationary point, to the tolerance",
            "the energy error is of order dt^2",
        ),
    },
}
