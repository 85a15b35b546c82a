"""Directions by an optax transformation, kept only where they descend; for smooth f.

No inequality covers an arbitrary optimiser, so each step is held to Armijo's test with
c1 = 1e-4. One that fails is followed by a plain gradient step, whose own inequality is checked,
and by a fresh optimiser.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from temporal_fabric.flows.certificates import descent
from temporal_fabric.flows.schemes.contract import (
    Carry,
    Check,
    Problem,
    refreshed,
    rejected,
    started,
)
from temporal_fabric.flows.schemes.riemannian import ARMIJO
from temporal_fabric.flows.states import add, chosen, combined, dot, norm, times

if TYPE_CHECKING:
    from jax import Array

    from temporal_fabric.flows.states import State

__all__ = ["Guide", "Guided"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Guide:
    """What the optimiser remembers, and whether it has just failed."""

    memory: Any
    failed: Array


@dataclass(frozen=True)
class Guided:
    """Steps by an optax transformation, whose updates are added as they are."""

    transformation: Any
    """An `optax.GradientTransformation`."""

    def init(self, problem: Problem, z: State) -> Carry:
        """Return the first carry."""
        return started(problem, z, Guide(self.transformation.init(z), jnp.zeros((), jnp.bool)))

    def refresh(self, problem: Problem, carry: Carry) -> Carry:
        """Return the carry with its images computed afresh."""
        return refreshed(problem, carry)

    def step(self, problem: Problem, carry: Carry) -> tuple[Carry, Check]:
        """Take the optimiser's step, or a plain one after a failure, and check it."""
        energy, guide = problem.energy, carry.extra
        gradient = energy.grad_at(carry.z, carry.images)
        updates, memory = self._suggested(gradient, guide.memory, carry.z)
        plain = times(-carry.alpha, gradient)
        d: State = chosen(guide.failed, plain, updates)
        along = energy.images(d)
        square, slope = dot(d, d), dot(gradient, d)
        change, size = energy.f_difference_at(d, carry.images, along)
        bend = energy.bend_at(d, carry.images, along)
        curvature = descent.curvature_ratio(bend, square, norm(carry.z), carry.beta)
        beta_k = bend / jnp.where(square > 0, square, 1)
        violation = descent.proximal(change, size, square, carry.alpha, beta_k)
        slack = descent.TOLERANCE * jnp.asarray(jnp.finfo(size.dtype).eps, size.dtype) * size
        poor = ~guide.failed & ((slope > 0) | (change > ARMIJO * slope + slack))
        too_curved = guide.failed & (curvature > 1)
        fresh = self.transformation.init(carry.z)
        kept = Guide(chosen(guide.failed, fresh, memory), jnp.zeros_like(guide.failed))
        after = replace(
            carry,
            z=add(carry.z, d),
            images=combined(carry.images, 1, along),
            gradient=gradient,
            square=square,
            iteration=carry.iteration + 1,
            extra=kept,
        )
        idle = replace(
            carry, iteration=after.iteration, extra=Guide(fresh, jnp.ones_like(guide.failed))
        )
        carried = rejected(too_curved, carry, chosen(poor, idle, after))
        check = Check(
            jnp.where(guide.failed & ~too_curved, violation, 0),
            jnp.where(guide.failed, curvature, 0),
            too_curved.astype(jnp.int32),
            poor.astype(jnp.int32),
        )
        return carried, check

    def _suggested(self, gradient: State, memory: Any, z: State) -> tuple[State, Any]:
        """Return the optimiser's step and memory, in the dtypes that they had."""
        # optax mixes its counters with floats; what it returns is cast back.
        with jax.numpy_dtype_promotion("standard"):
            updates, after = self.transformation.update(gradient, memory, z)
        step = {slot: x.astype(z[slot].dtype) for slot, x in updates.items()}
        return step, jax.tree.map(lambda new, old: new.astype(old.dtype), after, memory)
