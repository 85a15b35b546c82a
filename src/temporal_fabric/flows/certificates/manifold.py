"""Flows on manifolds: how far a state is from its manifold, and Armijo's rule."""

from __future__ import annotations

from temporal_fabric.flows.certificates.record import Finding, Kind

__all__ = ["ARMIJO", "armijo", "feasibility"]

ARMIJO = 1e-4
"""c1 of the sufficient decrease E(z+) <= E(z) - c1 alpha |grad_R f|^2."""


def feasibility(distance: float, scale: float) -> Finding:
    """Return how far a state is from its manifold, relative to its size."""
    value = distance / max(scale, 1e-300)
    return Finding(
        name="feasibility",
        value=value,
        kind=Kind.RIGOROUS,
        method="distance to the manifold",
        found=f"the state is {value:.3g} off its manifold, relatively",
        meaning="It is no point of the set that the problem is stated on",
        remedy="Retract more often, or in float64",
    )


def armijo(violation: float) -> Finding:
    """Return the decrease of trial steps against Armijo's rule, as `descent` measures it.

    Args:
        violation: Of E(z+) <= E(z) - c1 alpha |grad_R f|^2, in units of rounding.
    """
    return Finding(
        name="armijo",
        value=violation,
        kind=Kind.MEASURED,
        method=f"Armijo with c1 = {ARMIJO:g}, measured",
        found=f"the decrease is missed by {violation:.3g} of the rounding allowed",
        meaning="Even a halved step does not decrease the energy enough",
        remedy="Check the gradient and the retraction",
    )
