"""Small energies with known minima, and what their schemes need."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from temporal_fabric.flows.energy import Energy, NonsmoothTerm, SmoothTerm
from temporal_fabric.flows.losses import Squared
from temporal_fabric.flows.operators import Dense, Identity, Operator
from temporal_fabric.flows.penalties import L1
from temporal_fabric.flows.schemes.contract import Problem
from tests.flows.parts import normal

LAMBDA = 0.1


def least_squares(a: Any, y: Any, mu: float = 0.0) -> tuple[Any, ...]:
    """Return |A x - y|^2/2 + mu |x|^2/2 as smooth terms of the slot x."""
    rows, columns = a.shape
    terms = [SmoothTerm(jnp.asarray(1.0), Squared(y), {"x": Dense(a, (columns,), (rows,))})]
    if mu:
        shrink: dict[str, Operator] = {"x": Identity((columns,), "float64")}
        terms.append(SmoothTerm(jnp.asarray(mu), Squared(jnp.zeros(columns)), shrink))
    return tuple(terms)


def lasso(mu: float = 0.0) -> tuple[Energy, float]:
    """Return an underdetermined lasso, and a bound of its curvature."""
    a, y = normal(1, 20, 40) / 5, normal(2, 20)
    penalty = NonsmoothTerm(
        jnp.asarray(LAMBDA), L1(jnp.asarray(1.0)), Identity((40,), "float64"), "x"
    )
    beta = float(np.linalg.norm(np.asarray(a), 2) ** 2) * (1 + 1e-12) + mu
    return Energy(least_squares(a, y, mu), (penalty,)), beta


def problem(energy: Energy, alpha: float, beta: float, **more: Any) -> Problem:
    """Return a problem with neutral numbers where none are given."""
    settings: dict[str, Any] = {
        "sigma": jnp.asarray(1.0),
        "friction": jnp.asarray(1.0),
        "metric": {},
        "scales": None,
    }
    return Problem(energy, jnp.asarray(float(alpha)), jnp.asarray(beta), **{**settings, **more})
