"""A smooth term of the user's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from temporal_fabric.flows.operators import static
from temporal_fabric.flows.states import State, add, dot

if TYPE_CHECKING:
    from collections.abc import Callable

    from jax import Array

__all__ = ["OwnSmooth"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class OwnSmooth:
    """weight * function(parameters, state): the user's own, differentiated by JAX."""

    weight: Array
    parameters: Any
    function: Callable[[Any, State], Array] = static()
    slots: tuple[str, ...] = static()
    name: str = static(default="own")

    @property
    def variables(self) -> tuple[str, ...]:
        """The slots it depends on."""
        return self.slots

    def value(self, state: State) -> Array:
        """Return the weighted function."""
        return self.weight * self.function(self.parameters, self._own(state))

    def grad(self, state: State) -> State:
        """Return its derivative."""
        gradient: State = jax.grad(self.value)(self._own(state))
        return gradient

    def hessian_apply(self, state: State, direction: State) -> State:
        """Return the derivative of the gradient along a direction."""
        bend: State = jax.jvp(self.grad, (self._own(state),), (self._own(direction),))[1]
        return bend

    def difference(self, state: State, direction: State) -> tuple[Array, Array]:
        """Return a plain difference: nothing is known that would cancel less."""
        return self.difference_at(self._own(state), self._own(direction))

    def image(self, state: State) -> State:
        """Return the slots themselves: of a function nothing is known that is linear."""
        return self._own(state)

    def value_at(self, image: State) -> Array:
        """Return the weighted function."""
        return self.value(image)

    def grad_at(self, image: State) -> State:
        """Return its derivative."""
        return self.grad(image)

    def difference_at(self, image: State, along: State) -> tuple[Array, Array]:
        """Return a plain difference."""
        before, after = self.value(image), self.value(add(image, along))
        return after - before, jnp.abs(after) + jnp.abs(before)

    def bend_at(self, image: State, along: State) -> Array:
        """Return twice the difference beyond the slope."""
        change, _ = self.difference_at(image, along)
        return 2 * (change - dot(self.grad(image), along))

    def _own(self, state: State) -> State:
        return {slot: state[slot] for slot in self.slots}
