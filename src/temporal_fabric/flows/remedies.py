"""What the controller may change of a flow, and which change touches which certificate.

A remedy that does not touch the failing certificate only costs time: neither eta_dd nor gamma_low
contains the step, and no unitary lens moves gamma_low. Only moves that the specification allows
are made, and those that change the energy say so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from temporal_fabric.flows.reports import Failing, Gate, Linted

__all__ = ["Allowed", "Settings", "chosen", "remedy"]

LENS, MU, STEP = "lens", "mu", "step"

_TOUCHED_BY: dict[str, tuple[str, ...]] = {
    "eta_dd": (LENS, MU),
    "transform": (LENS,),
    "gamma_low": (MU,),
    "gamma_est": (MU,),
    "existence": (MU,),
    "momentum": (STEP,),
    "step": (STEP,),
    "manifold_step": (STEP,),
    "primal_dual_step": (STEP,),
    "preconditioner": (STEP,),
    "armijo": (STEP,),
}
"""The moves that a certificate before the run depends on; of others none can be repaired."""

_MARGIN = 1.01
"""What is added to a computed mu, so that rounding does not miss the bound."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that may be changed; all defaults: the flow as it was specified."""

    lens: str = ""
    """Name of the lens; empty: the specification's."""

    mu: float = 0.0
    """Weight of an added Tikhonov term mu |z|^2 / 2."""

    halvings: int = 0
    """How often the step was halved by a decision."""

    lambdas: tuple[float, ...] = (1.0,)
    """Factors of lambda: one for all scales, or one for each from coarse to fine."""

    @property
    def changes_energy(self) -> bool:
        """Whether another problem is solved than the one that was specified."""
        return bool(self.lens) or self.mu > 0 or any(x != 1.0 for x in self.lambdas)


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """Which remedies the specification allows; halving the step always is."""

    lenses: tuple[str, ...] = ()
    """Other lenses in which g is separable, in the order in which to try them."""

    mu_max: float = 0.0
    """Largest mu that may be added; 0: none."""

    mu_first: float = 1e-6
    """Smallest mu that is worth a try."""


def chosen(report: Linted) -> tuple[Settings, tuple[str, ...]]:
    """Return the settings to begin with, and the lenses that are left as remedies."""
    best, lenses = report.lens, report.lenses
    if lenses:
        best = lenses[0]
    settings = Settings(
        lens="" if best == report.lens else best, lambdas=report.lambdas or Settings().lambdas
    )
    return settings, lenses[1:] if best == report.lens else lenses


def remedy(
    gate: Gate, settings: Settings, allowed: Allowed, *, attempt: int, attempts: int
) -> Settings | None:
    """Return changed settings, or None where the gate cannot be opened by an allowed move.

    Every failing certificate must be one that some allowed move touches: to repair the one and
    leave the other is no use.

    Args:
        gate: The decision that is not GREEN.
        settings: In force when it was made.
        allowed: By the specification.
        attempt: Number of this attempt, from 1.
        attempts: How many there are; the last one goes as far as is allowed.
    """
    if gate.missing or not gate.failing:
        return None
    options = [
        next(_moves(one, settings, allowed, attempts - attempt), None) for one in gate.failing
    ]
    if any(option is None for option in options):
        return None
    return next(option for option in options if option is not None)


def _moves(failing: Failing, settings: Settings, allowed: Allowed, left: int) -> Iterator[Settings]:
    for move in _TOUCHED_BY.get(failing.name, ()):
        if move == LENS and (lens := _next_lens(settings, allowed)):
            yield replace(settings, lens=lens)
        if move == MU and (mu := _next_mu(failing, settings, allowed, left)) > settings.mu:
            yield replace(settings, mu=mu)
        if move == STEP:
            yield replace(settings, halvings=settings.halvings + 1)


def _next_lens(settings: Settings, allowed: Allowed) -> str:
    if settings.lens not in allowed.lenses:
        return allowed.lenses[0] if allowed.lenses else ""
    after = allowed.lenses.index(settings.lens) + 1
    return allowed.lenses[after] if after < len(allowed.lenses) else ""


def _next_mu(failing: Failing, settings: Settings, allowed: Allowed, left: int) -> float:
    """Return the next mu: what gamma lacks is known, what dominance lacks is searched for."""
    short = failing.value is not None and failing.bound is not None
    if failing.name in {"gamma_low", "gamma_est"} and short:
        lacks = (failing.bound or 0.0) - (failing.value or 0.0)
        return min(settings.mu + _MARGIN * max(lacks, allowed.mu_first), allowed.mu_max)
    start = max(settings.mu, allowed.mu_first)
    if left <= 0 or start >= allowed.mu_max:
        return allowed.mu_max
    return float(start * (allowed.mu_max / start) ** (1 / (left + 1)))
