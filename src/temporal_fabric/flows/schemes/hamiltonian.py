"""Damped Hamiltonian flow: friction, kick, drift, kick, friction, for smooth f.

Without friction the leapfrog conserves energy and descends nothing; with it, the shadow energy
falls by at least (1/2)(1 - exp(-c dt)) (|p_before|^2 + |p_after|^2) a step, for quadratic f
(Hairer, Lubich, Wanner, 2006, section I.5; Franca, Sulam, Robinson, Vidal, 2020).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import jax.numpy as jnp

from temporal_fabric.flows.certificates import descent
from temporal_fabric.flows.primitives import kick_drift_kick
from temporal_fabric.flows.schemes.contract import (
    Carry,
    Check,
    Problem,
    decided,
    judged,
    noise,
    refreshed,
    started,
)
from temporal_fabric.flows.states import dot, norm, subtract, times

if TYPE_CHECKING:
    from jax import Array

    from temporal_fabric.flows.states import State

__all__ = ["HamiltonianDamped", "shadow_energy"]


def shadow_energy(f: Array, momentum: Array, gradient: Array, dt: Array) -> Array:
    """Return |p|^2/2 + f - dt^2 |grad f|^2 / 8, which leapfrog conserves for quadratic f.

    It is (1/2)(q - q*)'(L - dt^2 L^2/4)(q - q*) + |p|^2/2 up to a constant.

    Args:
        f: Value at the position.
        momentum: |p|^2.
        gradient: |grad f|^2.
        dt: The step.
    """
    return 0.5 * momentum + f - dt**2 * gradient / 8


@dataclass(frozen=True)
class HamiltonianDamped:
    """Leapfrog between two halves of friction; alpha is dt, with dt^2 beta_up < 4."""

    quadratic: bool = True
    """Whether f is quadratic, so that the shadow energy is known."""

    def init(self, problem: Problem, z: State) -> Carry:
        """Return the first carry, at rest."""
        carry = started(problem, z, {slot: jnp.zeros_like(x) for slot, x in z.items()})
        return replace(carry, gradient=problem.energy.grad_f(z))

    def refresh(self, problem: Problem, carry: Carry) -> Carry:
        """Return the carry with images and gradient computed afresh."""
        return replace(refreshed(problem, carry), gradient=problem.energy.grad_f(carry.z))

    def step(self, problem: Problem, carry: Carry) -> tuple[Carry, Check]:
        """Take one step and check the shadow energy."""
        energy, dt = problem.energy, carry.alpha
        decay = jnp.exp(-0.5 * problem.friction * dt)
        p = times(decay, carry.extra)
        q, kicked, gradient = kick_drift_kick(
            carry.z, p, carry.gradient, dt, lambda at: energy.grad_at(at, energy.images(at))
        )
        d = subtract(q, carry.z)
        along, images = energy.images(d), energy.images(q)
        square = dot(d, d)
        bend = energy.bend_at(q, carry.images, along)
        curvature = descent.curvature_ratio(bend, square, norm(carry.z), carry.beta)
        momentum, last = times(decay, kicked), carry.extra
        change, _ = energy.f_difference_at(q, carry.images, along)
        turn = subtract(gradient, carry.gradient)
        turned = dot(turn, gradient) + dot(turn, carry.gradient)
        # Both energies are taken relative to f(z): their difference is all that counts.
        zero = jnp.zeros_like(change)
        before = shadow_energy(zero, dot(last, last), dot(carry.gradient, carry.gradient), dt)
        after_square = dot(momentum, momentum)
        after = before + 0.5 * (after_square - dot(last, last)) + change - dt**2 * turned / 8
        lost = -jnp.expm1(-problem.friction * dt)
        violation = descent.shadow(before, after, lost, dot(last, last), dot(kicked, kicked))
        # Near rest the shadow energy is far below the rounding of the gradient in it.
        size = jnp.abs(before) + jnp.abs(after)
        violation *= size / (size + noise(problem, carry, d))
        moved = replace(
            carry,
            z=q,
            images=images,
            gradient=gradient,
            square=square,
            iteration=carry.iteration + 1,
            extra=momentum,
        )
        violation = judged(violation, square, norm(carry.z)) if self.quadratic else zero
        return decided(carry, moved, violation, curvature)
