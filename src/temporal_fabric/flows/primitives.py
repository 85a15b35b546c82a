"""The five primitives: nothing else runs in the inner loop of a flow.

F_Dis dissipates along the gradient, F_Multi analyses, F_Proj applies a prox, F_Multi^-1
synthesises, F_Con conserves. Schemes are made of these and of sums of states.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

if TYPE_CHECKING:
    from collections.abc import Callable

    from jax import Array

    from temporal_fabric.flows.operators import Operator
    from temporal_fabric.flows.penalties import Penalty

__all__ = ["dissipate", "kick_drift_kick", "multiscale", "project", "synthesise"]


def dissipate(z: Any, gradient: Any, step: Any) -> Any:
    """F_Dis: return z - step * gradient, slot by slot; a step of z's shape is a diagonal metric."""
    return {slot: x - step * gradient[slot] for slot, x in z.items()}


def multiscale(x: Array, lens: Operator) -> Array:
    """F_Multi: return W x."""
    return lens.matvec(x)


def project(u: Array, penalty: Penalty, step: Array) -> Array:
    """F_Proj: return the prox of step * penalty at u."""
    return penalty.prox(u, step)


def synthesise(x: Array, u: Array, v: Array, lens: Operator) -> Array:
    """F_Multi^-1: return the array whose coefficients have changed from u = W x to v.

    For W W' = c I this is x + W'(v - u)/c (Combettes and Pesquet, SIAM J. Optim. 18, 2007,
    Proposition 11); for an orthonormal W it is W'v.
    """
    if getattr(lens, "frame", None) == "orthonormal":
        return lens.adjoint(v)
    return x + lens.adjoint(v - u) / jnp.asarray(getattr(lens, "frame_constant", 1.0), x.dtype)


def kick_drift_kick(
    q: Any, p: Any, force: Any, step: Array, gradient: Callable[[Any], Any]
) -> tuple[Any, Any, Any]:
    """F_Con: return position, momentum and gradient after one leapfrog step.

    Symplectic and reversible, with an energy error of order step^2 (Hairer, Lubich, Wanner,
    Geometric Numerical Integration, 2006, section I.1.4).

    Args:
        q: Position.
        p: Momentum.
        force: Gradient at q, kept from the step before.
        step: dt.
        gradient: Gives the gradient at a position.
    """
    half = {slot: x - 0.5 * step * force[slot] for slot, x in p.items()}
    moved = {slot: x + step * half[slot] for slot, x in q.items()}
    new_force = gradient(moved)
    kicked = {slot: x - 0.5 * step * new_force[slot] for slot, x in half.items()}
    return moved, kicked, new_force
