"""KKT: the gradient mapping G = (z - z+)/alpha, zero exactly at stationary points."""

from __future__ import annotations

from temporal_fabric.flows.certificates.record import Finding, Kind
from temporal_fabric.flows.certificates.rounding import U

__all__ = ["distance", "kkt", "strong_gap"]


def kkt(mapping: float, norm: float, alpha: float, beta: float) -> Finding:
    """Return |G| relative to beta max(|z|, 1).

    Args:
        mapping: |G|, of a plain step from z.
        norm: |z|.
        alpha: That step's size.
        beta: beta_up.
    """
    error = 4 * U * norm / alpha
    value = (mapping + error) / (beta * max(norm, 1.0))
    return Finding(
        name="kkt",
        value=value,
        kind=Kind.RIGOROUS,
        error=error / (beta * max(norm, 1.0)),
        method="|G| / (beta max(|z|, 1))",
        found=f"the gradient mapping is {mapping:.3g}, relatively {value:.3g}",
        meaning="The point is not stationary to the tolerance",
        remedy="Run more iterations",
    )


def strong_gap(mapping: float, gamma: Finding, fall: float) -> float | None:
    """Return a bound of E(z) - min E; None unless gamma_low is proved positive.

    E(z+) - min E <= |G|^2 / (2 gamma) for a plain step with alpha < 2/beta_up and convex g (Beck,
    2017, Theorem 10.29). Near a corner of g E(z) may be above E(z+) by more than that.

    Args:
        mapping: |G|, of a plain step from z.
        gamma: gamma_low.
        fall: E(z) - E(z+), or more.
    """
    if gamma.value is None or gamma.value <= 0 or not gamma.proves:
        return None
    return fall + mapping**2 / (2 * gamma.value) * (1 + 8 * U)


def distance(mapping: float, gamma: Finding) -> float | None:
    """Return |G| / gamma >= |z+ - z*|; None unless gamma_low is proved positive."""
    if gamma.value is None or gamma.value <= 0 or not gamma.proves:
        return None
    return mapping / gamma.value * (1 + 8 * U)
