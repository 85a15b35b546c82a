"""What a run declares should not change, and the equations that it should satisfy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp

from temporal_fabric.flows.operators import static
from temporal_fabric.flows.states import norm

if TYPE_CHECKING:
    from collections.abc import Callable

    from jax import Array

    from temporal_fabric.flows.operators import Operator
    from temporal_fabric.flows.states import State

__all__ = ["Holdout", "Invariant", "Observables", "Physics"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Invariant:
    """A number that should keep the value it had at the start."""

    reference: Array
    """Its value at the start of the run, as stored; never that of the last call."""

    name: str = static()
    variable: str = static()
    kind: Literal["sum", "mean", "norm", "own"] = static()
    tolerance: float | None = static(default=None)
    function: Callable[[State], Array] | None = static(default=None)

    def value(self, state: State) -> Array:
        """Return the number at a state."""
        x = state[self.variable]
        if self.function is not None:
            return self.function(state)
        if self.kind == "norm":
            return jnp.sqrt(jnp.sum(x**2))
        return jnp.mean(x) if self.kind == "mean" else jnp.sum(x)

    def drift(self, state: State) -> Array:
        """Return |value - reference| / max(|reference|, 1)."""
        apart = jnp.abs(self.value(state) - self.reference)
        return apart / jnp.maximum(jnp.abs(self.reference), 1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Physics:
    """Equations P x = q that the result should satisfy."""

    operators: dict[str, Operator]
    target: Array
    tolerance: float = static(default=1e-3)

    def residual(self, state: State) -> Array:
        """Return |P x - q| / max(|q|, 1)."""
        parts = {slot: op.matvec(state[slot]) for slot, op in self.operators.items()}
        first, *others = parts.values()
        apart = sum(others, first) - self.target
        return norm({"q": apart}) / jnp.maximum(norm({"q": self.target}), 1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Holdout:
    """Data that no term has seen."""

    operator: Operator
    target: Array
    entries: Array
    """1 where an entry is held out, else 0."""

    variable: str = static()
    noise: float = static()
    """Standard deviation."""

    def residual(self, state: State) -> tuple[Array, Array]:
        """Return |A x - q|^2 over what is held out, and how many entries that are."""
        apart = (self.operator.matvec(state[self.variable]) - self.target) * self.entries
        return jnp.sum(apart**2), jnp.sum(self.entries)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Observables:
    """Everything that a run measures of its state beside its energy."""

    invariants: tuple[Invariant, ...] = ()
    physics: tuple[Physics, ...] = ()
    holdouts: tuple[Holdout, ...] = ()
    """Looked at in the end only: what is looked at on the way is no longer held out."""

    def row(self, state: State) -> dict[str, Any]:
        """Return the largest drift and residual; nothing for what is not declared."""
        row: dict[str, Any] = {}
        if self.invariants:
            row["invariant_drift_max"] = _largest([one.drift(state) for one in self.invariants])
        if self.physics:
            row["phi_residual"] = _largest([one.residual(state) for one in self.physics])
        return row


def _largest(values: list[Array]) -> Array:
    return jnp.max(jnp.stack(values))
