"""Steps in a diagonal metric P of the lens, with the prox in that same metric.

z+ = W' prox^P(W z - P^-1 W grad f(z)), with P at least the Hessian (Chouzenoux, Pesquet, Repetti,
J. Optim. Theory Appl. 162, 2014). A plain prox after a preconditioned gradient ends elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import jax.numpy as jnp

from temporal_fabric.flows.certificates import descent
from temporal_fabric.flows.primitives import multiscale, project, synthesise
from temporal_fabric.flows.schemes.contract import (
    Carry,
    Check,
    Problem,
    changed,
    judged,
    refreshed,
    rejected,
    started,
)
from temporal_fabric.flows.states import combined, subtract

if TYPE_CHECKING:
    from jax import Array

    from temporal_fabric.flows.states import State

__all__ = ["Preconditioned"]


@dataclass(frozen=True)
class Preconditioned:
    """Proximal steps in a diagonal metric; alpha is relative to it, 1 at first."""

    slots: tuple[str, ...] = ()
    """Slots without a nonsmooth term, whose metric has the numbers -1, -2, ...."""

    def init(self, problem: Problem, z: State) -> Carry:
        """Return the first carry."""
        one = jnp.ones((), problem.alpha.dtype)
        return replace(started(problem, z, ()), alpha=one, beta=one)

    def refresh(self, problem: Problem, carry: Carry) -> Carry:
        """Return the carry with its images computed afresh."""
        return refreshed(problem, carry)

    def step(self, problem: Problem, carry: Carry) -> tuple[Carry, Check]:
        """Take one step and check its descent in the metric."""
        energy = problem.energy
        gradient = energy.grad_at(carry.z, carry.images)
        z, coefficients, square, length = self._moved(problem, carry, gradient)
        d = subtract(z, carry.z)
        along = energy.images(d)
        bend = energy.bend_at(z, carry.images, along)
        change, size = changed(problem, carry, d, along, coefficients)
        curvature = descent.curvature_ratio(bend, square, length, carry.beta)
        product = square / carry.alpha
        theta = bend / jnp.where(product > 0, product, 1)
        violation = descent.preconditioned(change, size, product, theta)
        after = replace(
            carry,
            z=z,
            images=combined(carry.images, 1, along),
            coefficients=coefficients,
            gradient=gradient,
            square=square,
            iteration=carry.iteration + 1,
        )
        failed = curvature > 1
        flag = failed.astype(jnp.int32)
        violation = judged(violation, failed, square, length)
        check = Check(violation, curvature, flag, jnp.zeros_like(flag))
        return rejected(failed, carry, after), check

    def _moved(
        self, problem: Problem, carry: Carry, gradient: State
    ) -> tuple[State, tuple[Array, ...], Array, Array]:
        """Return z+, its coefficients, d'P d, and the length of z in the metric."""
        z = dict(carry.z)
        square = weight = jnp.zeros((), carry.alpha.dtype)
        for number, slot in enumerate(self.slots):
            metric = problem.metric[-1 - number]
            d = -carry.alpha * gradient[slot] / metric
            square += jnp.sum(metric * d**2)
            weight += jnp.sum(metric * z[slot] ** 2)
            z[slot] += d
        coefficients: list[Array] = []
        for number, term in enumerate(problem.energy.nonsmooth):
            slot, old, metric = term.variable, carry.coefficients[number], problem.metric[number]
            reach = carry.alpha / metric
            u = old - reach * multiscale(gradient[slot], term.operator)
            v = project(u, term.penalty, reach * term.weight)
            square += jnp.sum(metric * jnp.abs(v - old) ** 2)
            weight += jnp.sum(metric * jnp.abs(old) ** 2)
            z[slot] = synthesise(z[slot], old, v, term.operator)
            coefficients.append(v)
        return z, tuple(coefficients), square, jnp.sqrt(weight)
