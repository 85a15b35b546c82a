"""Steps in a diagonal metric P of the lens, with the prox in that same metric.

z+ = W' prox^P(W z - P^-1 W grad f(z)), with P at least the Hessian (Chouzenoux, Pesquet, Repetti,
J. Optim. Theory Appl. 162, 2014). A plain prox after a preconditioned gradient ends elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import jax.numpy as jnp

from temporal_fabric.flows.certificates import descent
from temporal_fabric.flows.primitives import dissipate, multiscale, project, synthesise
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
from temporal_fabric.flows.schemes.proximal import landed
from temporal_fabric.flows.states import add, combined

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
        d, coefficients, square, length = self._moved(problem, carry, gradient)
        along = energy.images(d)
        bend = energy.bend_at(d, carry.images, along)
        change, size = changed(problem, carry, d, along, coefficients)
        curvature = descent.curvature_ratio(bend, square, length, carry.beta)
        product = square / carry.alpha
        theta = bend / jnp.where(product > 0, product, 1)
        violation = descent.preconditioned(change, size, product, theta)
        after = replace(
            carry,
            z=landed(problem, add(carry.z, d), coefficients),
            images=combined(carry.images, 1, along),
            coefficients=coefficients,
            gradient=gradient,
            square=square,
            iteration=carry.iteration + 1,
        )
        return decided(carry, after, judged(violation, square, length), curvature)

    def _moved(
        self, problem: Problem, carry: Carry, gradient: State
    ) -> tuple[State, tuple[Array, ...], Array, Array]:
        """Return d, the coefficients after it, d'P d, and the length of z in the metric."""
        d = {slot: jnp.zeros_like(x) for slot, x in carry.z.items()}
        square = weight = jnp.zeros((), carry.alpha.dtype)
        for number, slot in enumerate(self.slots):
            metric = problem.metric[-1 - number]
            d = {**d, **dissipate({slot: d[slot]}, gradient, carry.alpha / metric)}
            square += jnp.sum(metric * d[slot] ** 2)
            weight += jnp.sum(metric * carry.z[slot] ** 2)
        coefficients: list[Array] = []
        for number, term in enumerate(problem.energy.nonsmooth):
            slot, old, metric = term.variable, carry.coefficients[number], problem.metric[number]
            reach = carry.alpha / metric
            u = old - reach * multiscale(gradient[slot], term.operator)
            v = project(u, term.penalty, reach * term.weight)
            square += jnp.sum(metric * jnp.abs(v - old) ** 2)
            weight += jnp.sum(metric * jnp.abs(old) ** 2)
            d[slot] = synthesise(d[slot], jnp.zeros_like(v), v - old, term.operator)
            coefficients.append(v)
        return d, tuple(coefficients), square, jnp.sqrt(weight)
