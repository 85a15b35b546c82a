"""States: one array for each named slot, and the vector space that they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from jax import Array

__all__ = ["State", "add", "chosen", "combined", "dot", "norm", "subtract", "times", "total"]

State = dict[str, Any]
"""One array for each slot."""


def add(one: State, other: State) -> State:
    """Return the sum of two states."""
    return {slot: x + other[slot] for slot, x in one.items()}


def subtract(one: State, other: State) -> State:
    """Return the difference of two states."""
    return {slot: x - other[slot] for slot, x in one.items()}


def times(factor: Any, state: State) -> State:
    """Return a multiple of a state."""
    return {slot: factor * x for slot, x in state.items()}


def dot(one: State, other: State) -> Array:
    """Return the inner product over all slots."""
    return total([jnp.sum(x * other[slot]) for slot, x in one.items()], one)


def norm(state: State) -> Array:
    """Return the Euclidean norm over all slots."""
    return jnp.sqrt(dot(state, state))


def combined(one: Any, factor: Any, other: Any) -> Any:
    """Return one + factor * other, for any two pytrees of one shape."""
    return jax.tree.map(lambda x, y: x + factor * y, one, other)


def chosen(condition: Array, one: Any, other: Any) -> Any:
    """Return the first pytree where a scalar condition holds, else the second."""
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), one, other)


def total(values: list[Array], state: State) -> Array:
    """Return the sum of scalars in a state's dtype, also of none."""
    return sum(values, jnp.zeros((), next(iter(state.values())).dtype))
