"""The leapfrog: energy error of order two, time reversal, and a shadow energy."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from temporal_fabric.flows.primitives import kick_drift_kick
from temporal_fabric.flows.schemes.hamiltonian import shadow_energy
from tests.flows.parts import normal


def _pendulum(q: Any) -> Any:
    return {"q": jnp.sin(q["q"])}


def _flight(dt: float, steps: int, sign: float = 1.0) -> tuple[Any, Any, float]:
    """Fly a pendulum and return where it ends, and its largest energy error."""
    q, p = {"q": jnp.asarray([0.7])}, {"q": jnp.asarray([0.4 * sign])}
    force, worst = _pendulum(q), 0.0
    start = 0.5 * 0.4**2 - math.cos(0.7)
    for _ in range(steps):
        q, p, force = kick_drift_kick(q, p, force, jnp.asarray(dt), _pendulum)
        energy = float(0.5 * jnp.sum(p["q"] ** 2) - jnp.sum(jnp.cos(q["q"])))
        worst = max(worst, abs(energy - start))
    return q, p, worst


def test_the_energy_error_is_of_second_order() -> None:
    """Halving dt divides the energy error of a pendulum by four."""
    order = math.log2(_flight(0.2, 30)[2] / _flight(0.1, 60)[2])

    assert abs(order - 2) < 0.2


def test_time_runs_backwards() -> None:
    """With the momentum turned around, the flight ends at its start up to rounding."""
    q, p, _ = _flight(0.1, 40)
    p, force = {"q": -p["q"]}, _pendulum(q)
    for _ in range(40):
        q, p, force = kick_drift_kick(q, p, force, jnp.asarray(0.1), _pendulum)

    np.testing.assert_allclose(q["q"], [0.7], atol=1e-14)
    np.testing.assert_allclose(p["q"], [-0.4], atol=1e-14)


def test_the_shadow_energy_is_conserved() -> None:
    """For a quadratic f, where the energy itself wanders, the shadow energy does not."""
    hessian = jnp.diag(jnp.asarray([0.1, 1.0, 3.5]))

    def gradient(q: Any) -> Any:
        return {"q": hessian @ q["q"]}

    q, p, dt = {"q": normal(1, 3)}, {"q": normal(2, 3)}, jnp.asarray(1.0)
    force = gradient(q)
    plain, shadow = [], []
    for _ in range(50):
        f = 0.5 * jnp.sum(q["q"] * force["q"])
        squares = jnp.sum(p["q"] ** 2), jnp.sum(force["q"] ** 2)
        plain.append(float(f + 0.5 * squares[0]))
        shadow.append(float(shadow_energy(f, *squares, dt)))
        q, p, force = kick_drift_kick(q, p, force, dt, gradient)

    assert np.ptp(shadow) < 1e-13
    assert np.ptp(plain) > 1e-2
