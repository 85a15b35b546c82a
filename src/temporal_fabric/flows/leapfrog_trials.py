"""Undamped flights of a Hamiltonian flow: the order of its energy error, and its way back.

Both say whether the integrator is the leapfrog that the certificates speak of. They are measured
on the flow's own energy, from its own start, with a momentum that is drawn from its seed.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from temporal_fabric.flows.certificates.hamiltonian import energy_order, reversal
from temporal_fabric.flows.precision import CERT_DTYPE, cast
from temporal_fabric.flows.primitives import kick_drift_kick
from temporal_fabric.flows.states import dot, norm, subtract, times

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jax import Array

    from temporal_fabric.flows.certificates.record import Finding
    from temporal_fabric.flows.compiling import Compiled
    from temporal_fabric.flows.energy import Energy
    from temporal_fabric.flows.states import State

__all__ = ["flights"]

_STEPS = 32
_SHORT = 0.25
"""dt sqrt(beta) of the flights: the order is that of a dt towards zero."""


def flights(compiled: Compiled) -> Iterator[Finding]:
    """Yield the order of the energy error, in float64, and the reversal, in the flow's dtype."""
    problem, dtype = compiled.problem, compiled.spec.dtype
    beta = float(problem.beta_up)
    dt = min(float(problem.alpha), _SHORT / math.sqrt(beta))
    pushed = _momentum(compiled.start, beta, compiled.spec.seed)
    wide = cast((problem.energy, compiled.start, pushed), CERT_DTYPE)
    errors = [float(_flight(*wide, jnp.asarray(dt / by), _STEPS * by)[2]) for by in (1, 2)]
    yield energy_order(errors[0], errors[1])
    step = jnp.asarray(dt, dtype)
    q, p, _ = _flight(problem.energy, compiled.start, pushed, step, _STEPS)
    back, _, _ = _flight(problem.energy, q, times(-1, p), step, _STEPS)
    apart = float(norm(subtract(back, compiled.start)))
    scale = max(float(norm(compiled.start)), 1.0)
    yield reversal(apart, scale, 2 * _STEPS, dtype)


def _momentum(start: State, beta: float, seed: int) -> State:
    """Return a momentum as large as the force of a displacement by max(|z|, 1)."""
    drawn = {
        slot: jax.random.normal(jax.random.fold_in(jax.random.key(seed), n), x.shape, x.dtype)
        for n, (slot, x) in enumerate(start.items())
    }
    size = math.sqrt(beta) * max(float(norm(start)), 1.0) / float(norm(drawn))
    return {slot: x * jnp.asarray(size, x.dtype) for slot, x in drawn.items()}


@partial(jax.jit, static_argnums=4)
def _flight(
    energy: Energy, q: State, p: State, dt: Array, steps: int
) -> tuple[State, State, Array]:
    def force(at: State) -> State:
        return energy.grad_at(at, energy.images(at))

    images, kinetic = energy.images(q), 0.5 * dot(p, p)

    def one(carry: Any, _none: None) -> tuple[Any, None]:
        at, pace, pull, worst = carry
        at, pace, pull = kick_drift_kick(at, pace, pull, dt, force)
        # In difference form: the energies themselves agree in nearly all digits.
        along = energy.images(subtract(at, q))
        change, _ = energy.f_difference_at(at, images, along)
        error = jnp.abs(change + 0.5 * dot(pace, pace) - kinetic)
        return (at, pace, pull, jnp.maximum(worst, error)), None

    began = (q, p, force(q), jnp.zeros((), dt.dtype))
    ended, _ = jax.lax.scan(one, began, None, steps)
    return ended[0], ended[1], ended[3]
