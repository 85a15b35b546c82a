"""What is measured on the run itself: finite values, invariants, physics, held-out data.

A measurement says what is so on this run, and proves nothing about another. These findings keep a
gate open or close it, and open none; only whether every value is finite is a plain fact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from temporal_fabric.flows.certificates.record import Finding, Kind
from temporal_fabric.flows.precision import unit_roundoff

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jax import Array

__all__ = ["HOLDOUT", "Drift", "finite", "holdout", "invariants", "physics"]

HOLDOUT = (0.8, 1.25)
"""Where the mean squared residual of held-out data has to be, in units of the noise's variance."""


def finite(tree: Any, name: str = "state") -> Finding:
    """Return how many numbers of a pytree are infinite or not a number."""
    bad = int(_bad(jax.tree.leaves(tree)))
    return Finding(
        name="finite",
        value=float(bad),
        kind=Kind.RIGOROUS,
        method="every value",
        found=f"{bad} values of the {name} are not finite" if bad else f"the {name} is finite",
        meaning="Nothing computed from them means anything",
        remedy="Look at the data for gaps, and at the step for divergence",
    )


@jax.jit
def _bad(leaves: list[Any]) -> Array:
    counts = (jnp.sum(~jnp.isfinite(leaf)) for leaf in leaves)
    return sum(counts, jnp.zeros((), int))


@dataclass(frozen=True)
class Drift:
    """A quantity that should not change."""

    name: str
    reference: float
    """Its value at the start, as stored; never that of the last call."""

    value: float
    tolerance: float | None = None
    """Relative; by default what rounding does in a random walk."""


def invariants(drifts: Sequence[Drift], iterations: int, dtype: str) -> Finding:
    """Return the largest drift from the start, in units of its tolerance.

    Args:
        drifts: At least one.
        iterations: Since the start; 1e3 u sqrt(k) is allowed where no tolerance is given.
        dtype: Of the flow.
    """
    walk = 1e3 * unit_roundoff(dtype) * math.sqrt(max(iterations, 1))
    found = [
        (abs(one.value - one.reference) / max(abs(one.reference), 1.0), one.tolerance or walk, one)
        for one in drifts
    ]
    # NaN must come out as the worst, so it is not left to max().
    drift, tolerance, worst = max(
        found, key=lambda x: math.inf if math.isnan(x[0]) else x[0] / x[1]
    )
    return Finding(
        name="invariants",
        value=drift / tolerance,
        kind=Kind.MEASURED,
        method="drift from the start",
        found=f"{worst.name} has drifted by {drift:.3g}, of {tolerance:.3g} allowed",
        meaning="The flow has left the set that the problem is stated on",
        remedy="Take smaller steps, project, or declare a tolerance that the step can keep",
    )


def physics(residual: float, tolerance: float) -> Finding:
    """Return the declared physics residual in units of its tolerance."""
    return Finding(
        name="physics",
        value=residual / tolerance,
        kind=Kind.MEASURED,
        method="declared residual",
        found=f"the physics residual is {residual:.3g}, of {tolerance:.3g} allowed",
        meaning="The result does not satisfy the declared equations",
        remedy="Give the equations more weight, or make them a constraint",
    )


def holdout(residual_square: float, count: int, sigma: float) -> Finding:
    """Return how far the held-out residual is from what the noise explains.

    1 at either end of `HOLDOUT`: below it the noise was fitted, above it something was missed.

    Args:
        residual_square: |r|^2 over held-out data.
        count: How many.
        sigma: Standard deviation of the noise.
    """
    ratio = residual_square / (count * sigma**2)
    low, high = HOLDOUT
    value = max(ratio / high, low / ratio if ratio > 0 else math.inf)
    return Finding(
        name="holdout",
        value=value,
        kind=Kind.MEASURED,
        method="mean squared held-out residual / sigma^2",
        found=f"the held-out residual is {ratio:.3g} times what the noise explains",
        meaning="The model misses structure" if ratio > 1 else "The noise is smaller than said",
        remedy="Lower lambda or widen the model" if ratio > 1 else "Look at sigma again",
    )
