"""Proximal gradient steps; without g, plain gradient steps.

z+ = prox_{alpha g o W}(z - alpha grad f(z)), for 0 < alpha beta_up < 2 (Combettes and Wajs,
Multiscale Model. Simul. 4, 2005, Theorem 3.4; Beck, First-Order Methods in Optimization, 2017,
Lemma 10.4 for the descent).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from temporal_fabric.flows.certificates import descent
from temporal_fabric.flows.operators import Identity
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
from temporal_fabric.flows.states import add, combined, dot, norm

if TYPE_CHECKING:
    from jax import Array

    from temporal_fabric.flows.states import State

__all__ = ["Move", "Proximal", "forward_backward", "landed"]


class Move(NamedTuple):
    """Where F_Dis, F_Multi, F_Proj, F_Multi^-1 lead from z."""

    step: State
    """From z, synthesised from the change of coefficients: no digits cancel in it."""

    coefficients: tuple[Array, ...]
    """After the step."""

    active: Array


def forward_backward(
    problem: Problem, gradient: State, carry: Carry, lead: State, leads: tuple[Array, ...]
) -> Move:
    """Return the proximal gradient step from z + lead.

    W(z + lead - alpha grad f) is taken as W z + W lead - W(alpha grad f), with W z from the step
    before: d and W d then agree in all digits of d, and descent can be checked down to the
    rounding of z.

    Args:
        problem: Every nonsmooth term has W W' = c I, one for each slot.
        gradient: Of f at z + lead.
        carry: z, its coefficients, alpha, and the active scale.
        lead: Momentum; zero for a plain step.
        leads: Coefficients of the lead.
    """
    step = dissipate(lead, gradient, carry.alpha)
    fall = dissipate({slot: jnp.zeros_like(x) for slot, x in lead.items()}, gradient, carry.alpha)
    found: list[Array] = []
    active = carry.active
    for number, term in enumerate(problem.energy.nonsmooth):
        slot, lens, old = term.variable, term.operator, carry.coefficients[number]
        c = jnp.asarray(getattr(lens, "frame_constant", 1.0), carry.alpha.dtype)
        moved = leads[number] + multiscale(fall[slot], lens)
        v = project(old + moved, term.penalty, c * carry.alpha * term.weight)
        scales = problem.scales
        if scales is not None and scales.term == number:
            active = scales.next_active(carry.active, v, old, carry.iteration + 1)
            v = scales.held(carry.active, v, old)
        step[slot] = synthesise(step[slot], moved, v - old, lens)
        found.append(v)
    return Move(step, tuple(found), active)


def landed(problem: Problem, z: State, coefficients: tuple[Array, ...]) -> State:
    """Return a state whose pixels are exactly what a prox without a lens made of them."""
    for term, v in zip(problem.energy.nonsmooth, coefficients, strict=True):
        if isinstance(term.operator, Identity):
            z = {**z, term.variable: v}
    return z


@dataclass(frozen=True)
class Proximal:
    """Proximal gradient; the fallback of every other scheme."""

    convex: bool = True
    """Whether g is convex; else alpha < 1/beta_up and a weaker inequality."""

    def init(self, problem: Problem, z: State) -> Carry:
        """Return the first carry."""
        return started(problem, z, ())

    def refresh(self, problem: Problem, carry: Carry) -> Carry:
        """Return the carry with its images computed afresh."""
        return refreshed(problem, carry)

    def step(self, problem: Problem, carry: Carry) -> tuple[Carry, Check]:
        """Take one step and check its descent."""
        energy, alpha = problem.energy, carry.alpha
        gradient = energy.grad_at(carry.z, carry.images)
        still = jax.tree.map(jnp.zeros_like, (carry.z, carry.coefficients))
        d, coefficients, active = forward_backward(problem, gradient, carry, *still)
        along = energy.images(d)
        square, bend = dot(d, d), energy.bend_at(d, carry.images, along)
        change, size = changed(problem, carry, d, along, coefficients)
        curvature = descent.curvature_ratio(bend, square, norm(carry.z), carry.beta)
        beta_k = bend / jnp.where(square > 0, square, 1)
        violation = descent.proximal(change, size, square, alpha, beta_k, convex=self.convex)
        after = replace(
            carry,
            z=landed(problem, add(carry.z, d), coefficients),
            images=combined(carry.images, 1, along),
            coefficients=coefficients,
            gradient=gradient,
            square=square,
            active=active,
            iteration=carry.iteration + 1,
        )
        violation = judged(violation, square, norm(carry.z))
        return decided(carry, after, violation, curvature)
