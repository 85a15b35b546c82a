"""Damped Hamiltonian flows: order of the energy error, time reversal, and rest.

Leapfrog keeps the energy to order dt^2 and runs backwards to where it came from (Hairer, Lubich,
Wanner, Geometric Numerical Integration, 2006, sections I.1.4 and IX.8). The decrease itself is
checked on the shadow energy, by `descent.shadow`.
"""

from __future__ import annotations

import math

from temporal_fabric.flows.certificates.record import Finding, Kind
from temporal_fabric.flows.precision import unit_roundoff

__all__ = ["energy_order", "rest", "reversal"]

_APART = 0.2
_REVERSAL = 100


def energy_order(error: float, halved: float) -> Finding:
    """Return |p - 2| / 0.2 for the order p seen when dt is halved.

    Args:
        error: Largest energy error of the undamped flow at dt, over a fixed time.
        halved: The same at dt/2.
    """
    seen = math.log2(error / halved) if error > 0 and halved > 0 else math.nan
    return Finding(
        name="energy_order",
        value=abs(seen - 2) / _APART,
        kind=Kind.MEASURED,
        method="dt and dt/2",
        found=f"the energy error is of order {seen:.3g} in dt",
        meaning="The integrator is not the leapfrog it should be, or dt is too large to tell",
        remedy="Halve dt; if the order stays away from 2, the force is no gradient",
    )


def reversal(apart: float, scale: float, steps: int, dtype: str) -> Finding:
    """Return how far a run forth and back ends from its start, in units of what is allowed.

    Args:
        apart: |z_back - z_start| after a change of sign of the momentum.
        scale: |z_start|.
        steps: Of the run forth: rounding walks.
        dtype: Of the flow.
    """
    allowed = _REVERSAL * unit_roundoff(dtype) * math.sqrt(max(steps, 1)) * max(scale, 1e-300)
    return Finding(
        name="reversal",
        value=apart / allowed,
        kind=Kind.MEASURED,
        method="forth and back",
        found=f"a run forth and back ends {apart:.3g} from its start",
        meaning="The integrator is not reversible, so its energy error is not bounded",
        remedy="Leave friction out of the test, and use the gradient of one energy only",
    )


def rest(momentum: float, position: float, beta: float) -> Finding:
    """Return |p| relative to sqrt(beta) max(|q|, 1)."""
    value = momentum / (math.sqrt(beta) * max(position, 1.0))
    return Finding(
        name="rest",
        value=value,
        kind=Kind.RIGOROUS,
        method="|p| / (sqrt(beta) max(|q|, 1))",
        found=f"the momentum left is {value:.3g}, relatively",
        meaning="The system still moves",
        remedy="Run longer, or with more friction",
    )
