"""Primal-dual steps for g that no single prox covers: TV with a blur, frames, two terms.

min f(x) + g(x) + sum_i h_i(K_i x), f smooth, g proximable (Condat, J. Optim. Theory Appl. 158,
2013, Algorithm 3.1; Vu, Adv. Comput. Math. 38, 2013; Chambolle and Pock, J. Math. Imaging Vis. 40,
2011, for f = 0). It needs 1/tau - sigma |K|^2 >= beta_up / 2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from temporal_fabric.flows.certificates import descent
from temporal_fabric.flows.primitives import dissipate
from temporal_fabric.flows.schemes.contract import (
    Carry,
    Check,
    Problem,
    decided,
    refreshed,
    started,
)
from temporal_fabric.flows.states import combined, dot, norm, subtract, total

if TYPE_CHECKING:
    from jax import Array

    from temporal_fabric.flows.states import State

__all__ = ["Duals", "PrimalDual"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Duals:
    """The dual variables, and the last step's length in the metric."""

    p: tuple[Array, ...]
    """One for each dual term, in the shape of K x."""

    residual: Array
    """|dx|^2/tau + |dp|^2/sigma - 2 <dp, K dx> of the step before; infinite at first."""


@dataclass(frozen=True)
class PrimalDual:
    """Condat-Vu. The numbers of the nonsmooth terms say how each is treated."""

    primal: tuple[int, ...]
    """By their prox: W W' = c I, one for each slot."""

    dual: tuple[int, ...]
    """By their conjugate's prox."""

    def init(self, problem: Problem, z: State) -> Carry:
        """Return the first carry, with zero duals."""
        carry = started(problem, z, None)
        p = tuple(jnp.zeros_like(carry.coefficients[number]) for number in self.dual)
        infinite = jnp.full((), jnp.inf, problem.alpha.dtype)
        return replace(carry, extra=Duals(p, infinite))

    def refresh(self, problem: Problem, carry: Carry) -> Carry:
        """Return the carry with its images computed afresh."""
        return refreshed(problem, carry)

    def step(self, problem: Problem, carry: Carry) -> tuple[Carry, Check]:
        """Take one step and check that its length, in the metric, has not grown."""
        energy, tau = problem.energy, carry.alpha
        sigma, past = problem.sigma, carry.extra
        gradient = energy.grad_at(carry.z, carry.images)
        z = dissipate(carry.z, self._pulled(problem, gradient, past.p), tau)
        for number in self.primal:
            term = energy.nonsmooth[number]
            z[term.variable] = term.prox(z[term.variable], tau)
        d = subtract(z, carry.z)
        along = energy.images(d)
        steps = energy.coefficients(d)
        coefficients = combined(carry.coefficients, 1, steps)

        ahead = combined(coefficients, 1, steps)
        pairs = zip(self.dual, past.p, strict=True)
        duals = tuple(energy.nonsmooth[n].dual_prox(p + sigma * ahead[n], sigma) for n, p in pairs)
        square, bend = dot(d, d), energy.bend_at(z, carry.images, along)
        curvature = descent.curvature_ratio(bend, square, norm(carry.z), carry.beta)
        moves = [new - old for new, old in zip(duals, past.p, strict=True)]
        pulls = [_inner(m, steps[n]) for m, n in zip(moves, self.dual, strict=True)]
        lengths = square, total([_inner(m, m) for m in moves], z), total(pulls, z)
        residual = descent.metric_residual(*lengths, tau, sigma)
        scale = dot(z, z) / tau + total([_inner(p, p) for p in duals], z) / sigma
        # The first step has nothing to be compared with.
        before = jnp.where(jnp.isfinite(past.residual), past.residual, residual)
        violation = descent.nonexpansive(residual, before, scale)
        after = replace(
            carry,
            z=z,
            images=combined(carry.images, 1, along),
            coefficients=coefficients,
            gradient=gradient,
            square=square,
            iteration=carry.iteration + 1,
            extra=Duals(duals, residual),
        )
        # After a step of another length the residual has nothing to be compared with.
        anew = replace(carry, extra=Duals(past.p, jnp.full_like(residual, jnp.inf)))
        return decided(anew, after, violation, curvature)

    def _pulled(self, problem: Problem, gradient: State, duals: tuple[Array, ...]) -> State:
        """Return grad f + sum K'p."""
        pulled = dict(gradient)
        for number, p in zip(self.dual, duals, strict=True):
            term = problem.energy.nonsmooth[number]
            pulled[term.variable] += term.operator.adjoint(p)
        return pulled


def _inner(one: Array, other: Array) -> Array:
    return jnp.sum((one.conj() * other).real)
