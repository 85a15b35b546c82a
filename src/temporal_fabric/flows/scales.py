"""Multiscale schedules: coarse coefficients move first, finer ones when they have reason to.

Coefficients of scales that are not active keep their values. A step on the others alone is a step
of the same scheme on a subspace, so its descent inequality holds as it stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp

from temporal_fabric.flows.operators import static

if TYPE_CHECKING:
    from jax import Array

__all__ = ["Scales"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Scales:
    """Which coefficients of one nonsmooth term may move, and when the next scale joins."""

    levels: Array
    """Scale of each coefficient: whole numbers, 0 the coarsest."""

    tau: Array
    """residual_driven: the next scale joins when its residual is above tau times the active's."""

    every: Array
    """fixed_schedule: a scale joins each time that many steps are done."""

    term: int = static()
    """Number of the nonsmooth term."""

    mode: Literal["residual_driven", "fixed_schedule"] = static()
    first: int = static(default=0)
    last: int = static(default=0)

    def held(self, active: Array, new: Array, old: Array) -> Array:
        """Return the new coefficients of active scales and the old ones of the others."""
        return jnp.where(self.levels <= active, new, old)

    def next_active(self, active: Array, new: Array, old: Array, iteration: Array) -> Array:
        """Return the finest scale that may move in the next step.

        Args:
            active: The finest that moved in this one.
            new: What the step would have made of all coefficients.
            old: What they were.
            iteration: Steps done, with this one.
        """
        if self.mode == "fixed_schedule":
            joins = iteration % self.every == 0
        else:
            residual = jnp.abs(new - old) ** 2
            none = jnp.zeros_like(residual)
            coarse = jnp.sum(jnp.where(self.levels <= active, residual, none))
            finer = jnp.sum(jnp.where(self.levels == active + 1, residual, none))
            joins = finer > self.tau**2 * coarse
        return jnp.where(joins, jnp.minimum(active + 1, self.last), active)
