"""Gradient steps along manifolds, with a proved L_R or with Armijo's test.

x+ = R_x(-alpha grad_R f(x)), for alpha < 2/L_R (Boumal, Absil, Cartis, IMA J. Numer. Anal. 39,
2019, Theorem 2.8). L_R is not the Euclidean beta: on the sphere it is beta + max |grad f|. Where
it is not known, a step stays only if E fell by c1 = 1e-4 of what the gradient promised. A prox
on a curved slot (by the tangent space, then retract) has no descent theorem, so it always comes
with that test.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import jax.numpy as jnp

from temporal_fabric.flows.certificates import descent
from temporal_fabric.flows.manifolds import Euclidean
from temporal_fabric.flows.primitives import dissipate
from temporal_fabric.flows.schemes.contract import (
    Carry,
    Check,
    Problem,
    changed,
    decided,
    judged,
    refreshed,
    started,
)
from temporal_fabric.flows.states import State, combined, norm, subtract, total

if TYPE_CHECKING:
    from jax import Array

__all__ = ["ARMIJO", "Riemannian"]

ARMIJO = 1e-4
_FLAT = Euclidean()


@dataclass(frozen=True)
class Riemannian:
    """Riemannian gradient; ``measured`` where no L_R is proved (beta_up then does not count)."""

    measured: bool = True

    def init(self, problem: Problem, z: State) -> Carry:
        """Return the first carry, on the manifold."""
        curved = dict(problem.manifolds)
        z = {slot: curved[slot].nearest(x) if slot in curved else x for slot, x in z.items()}
        return started(problem, z, ())

    def refresh(self, problem: Problem, carry: Carry) -> Carry:
        """Return the carry with its images computed afresh."""
        return refreshed(problem, carry)

    def step(self, problem: Problem, carry: Carry) -> tuple[Carry, Check]:
        """Take one step; keep it if it descends enough."""
        energy, alpha = problem.energy, carry.alpha
        curved = dict(problem.manifolds)
        euclidean = energy.grad_at(carry.z, carry.images)
        gradient: State = {}
        lengths: list[Array] = []
        for slot, x in carry.z.items():
            manifold = curved.get(slot, _FLAT)
            gradient[slot] = manifold.proj_tangent(x, euclidean[slot])
            lengths.append(manifold.metric(x, gradient[slot], gradient[slot]))
        square = total(lengths, carry.z)
        z, moved = self._moved(problem, carry, gradient)
        d = subtract(z, carry.z)
        along = energy.images(d)
        coefficients = energy.coefficients(z)
        change, size = changed(problem, carry, d, along, coefficients)
        # A retraction rounds across the tangent space too, where the gradient is not small.
        size += norm(euclidean) * norm(carry.z)
        promised = jnp.where(len(energy.nonsmooth) > 0, moved / alpha**2, square)
        bound = 2 * (1 - ARMIJO) / alpha if self.measured else carry.beta
        violation = descent.riemannian(change, size, promised, alpha, bound)
        after = replace(
            carry,
            z=z,
            images=combined(carry.images, 1, along),
            coefficients=coefficients,
            gradient=gradient,
            square=moved,
            iteration=carry.iteration + 1,
        )
        failed = (violation > 1) & self.measured
        violation = judged(violation, moved, norm(carry.z))
        return decided(carry, after, violation, jnp.zeros_like(violation), failed)

    def _moved(self, problem: Problem, carry: Carry, gradient: State) -> tuple[State, Array]:
        """Return the point after F_Dis and F_Proj, and the squared length of the way there."""
        curved = dict(problem.manifolds)
        z = dissipate(carry.z, gradient, carry.alpha)
        for slot, manifold in curved.items():
            z[slot] = manifold.retract(carry.z[slot], -carry.alpha * gradient[slot])
        for term in problem.energy.nonsmooth:
            slot = term.variable
            x = term.prox(z[slot], carry.alpha)
            if slot in curved:
                start = carry.z[slot]
                x = curved[slot].retract(start, curved[slot].proj_tangent(start, x - start))
            z[slot] = x
        d = subtract(z, carry.z)
        return z, total([jnp.sum(x**2) for x in d.values()], z)
