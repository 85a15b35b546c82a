"""The energy E = f + g over a state of named slots, as one pytree.

f is a sum of smooth terms, g a sum of nonsmooth ones. Weights, data and operators are leaves:
compiled programs take an energy as an argument.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import jax
import jax.numpy as jnp

from temporal_fabric.flows.operators import static

if TYPE_CHECKING:
    from collections.abc import Callable

    from jax import Array

    from temporal_fabric.flows.losses import Loss
    from temporal_fabric.flows.operators import Operator
    from temporal_fabric.flows.penalties import Penalty

__all__ = [
    "Energy",
    "NonsmoothTerm",
    "OwnSmooth",
    "QuadraticForm",
    "Smooth",
    "SmoothTerm",
    "State",
    "add",
    "dot",
    "norm",
    "subtract",
    "times",
]

State = dict[str, Any]
"""One array for each slot."""


class Smooth(Protocol):
    """A differentiable part of f. States may hold more slots than the part reads."""

    @property
    def variables(self) -> tuple[str, ...]:
        """The slots it depends on."""
        ...

    def value(self, state: State) -> Array:
        """Return its energy, a scalar."""
        ...

    def grad(self, state: State) -> State:
        """Return its Euclidean gradient in the slots it depends on."""
        ...

    def hessian_apply(self, state: State, direction: State) -> State:
        """Return the Hessian at a state, applied to a direction."""
        ...

    def difference(self, state: State, direction: State) -> tuple[Array, Array]:
        """Return f(z + d) - f(z) without cancellation, and the size of the terms it sums."""
        ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SmoothTerm:
    """weight * loss(sum over slots of A_slot x_slot)."""

    weight: Array
    loss: Loss
    operators: dict[str, Operator]
    name: str = static(default="smooth")

    @property
    def variables(self) -> tuple[str, ...]:
        """The slots it depends on."""
        return tuple(self.operators)

    def predict(self, state: State) -> Array:
        """Return sum A x."""
        first, *others = (op.matvec(state[slot]) for slot, op in self.operators.items())
        return sum(others, first)

    def value(self, state: State) -> Array:
        """Return the weighted loss of the prediction."""
        return self.weight * self.loss.value(self.predict(state))

    def grad(self, state: State) -> State:
        """Return weight * A' loss'(A x)."""
        residual = self.weight * self.loss.grad(self.predict(state))
        return {slot: op.adjoint(residual) for slot, op in self.operators.items()}

    def hessian_apply(self, state: State, direction: State) -> State:
        """Return weight * A' diag(loss'') A d."""
        bend = self.weight * self.loss.curvature(self.predict(state)) * self.predict(direction)
        return {slot: op.adjoint(bend) for slot, op in self.operators.items()}

    def difference(self, state: State, direction: State) -> tuple[Array, Array]:
        """Return the loss's own difference along A d."""
        at, along = self.predict(state), self.predict(direction)
        change = self.weight * self.loss.difference(at, along)
        slope = self.weight * jnp.sum(jnp.abs(self.loss.grad(at) * along))
        return change, slope


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class QuadraticForm:
    """weight * (x'Q x / 2 - <b, x>), Q symmetric and perhaps indefinite."""

    weight: Array
    operator: Operator
    linear: Array
    variable: str = static()
    name: str = static(default="quadratic_form")

    @property
    def variables(self) -> tuple[str, ...]:
        """The slot it depends on."""
        return (self.variable,)

    def value(self, state: State) -> Array:
        """Return the form."""
        x = state[self.variable]
        return self.weight * jnp.sum(x * (0.5 * self.operator.matvec(x) - self.linear))

    def grad(self, state: State) -> State:
        """Return weight * (Q x - b)."""
        x = state[self.variable]
        return {self.variable: self.weight * (self.operator.matvec(x) - self.linear)}

    def hessian_apply(self, state: State, direction: State) -> State:
        """Return weight * Q d."""
        del state
        return {self.variable: self.weight * self.operator.matvec(direction[self.variable])}

    def difference(self, state: State, direction: State) -> tuple[Array, Array]:
        """Return <d, Q x - b> + d'Q d / 2."""
        d = direction[self.variable]
        slope = d * self.grad(state)[self.variable]
        bend = 0.5 * self.weight * jnp.sum(d * self.operator.matvec(d))
        return jnp.sum(slope) + bend, jnp.sum(jnp.abs(slope)) + jnp.abs(bend)


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
        before = self.value(state)
        after = self.value(add(self._own(state), self._own(direction)))
        return after - before, jnp.abs(after) + jnp.abs(before)

    def _own(self, state: State) -> State:
        return {slot: state[slot] for slot in self.slots}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NonsmoothTerm:
    """weight * penalty(K x) for one slot; K is a transform, a gradient, or the identity."""

    weight: Array
    penalty: Penalty
    operator: Operator
    variable: str = static()
    name: str = static(default="nonsmooth")

    @property
    def frame(self) -> str | None:
        """The frame of K where it is a transform, None where it is another operator."""
        return getattr(self.operator, "frame", None)

    @property
    def is_proximable(self) -> bool:
        """Whether x -> penalty(K x) has the closed prox of `prox`: K K' = c I."""
        return self.frame in ("orthonormal", "co_isometry")

    def value(self, state: State) -> Array:
        """Return weight * penalty(K x)."""
        return self.weight * self.penalty.value(self.operator.matvec(state[self.variable]))

    def prox(self, x: Array, step: Array) -> Array:
        """Return the prox of step * weight * penalty o K, for K K' = c I (transforms, eq.)."""
        c = getattr(self.operator, "frame_constant", 1.0)
        u = self.operator.matvec(x)
        shrunken = self.penalty.prox(u, c * step * self.weight)
        if self.frame == "orthonormal":
            return self.operator.adjoint(shrunken)
        return x + self.operator.adjoint(shrunken - u) / c

    def dual_prox(self, p: Array, step: Array) -> Array:
        """Return the prox of step * (weight * penalty)* at p, by Moreau's identity."""
        return p - step * self.penalty.prox(p / step, self.weight / step)

    def conjugate(self, v: Array) -> Array:
        """Return (weight * penalty)*(v)."""
        return self.weight * self.penalty.conjugate(v / self.weight)

    def dual_scale(self, v: Array) -> Array:
        """Return an s in [0, 1] for which (weight * penalty)*(s v) is finite."""
        return self.penalty.dual_scale(v / self.weight)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Energy:
    """E = f + g."""

    smooth: tuple[Smooth, ...]
    nonsmooth: tuple[NonsmoothTerm, ...]

    def f(self, state: State) -> Array:
        """Return the smooth energy."""
        return _total([term.value(state) for term in self.smooth], state)

    def g(self, state: State) -> Array:
        """Return the nonsmooth energy; infinite outside its domain."""
        return _total([term.value(state) for term in self.nonsmooth], state)

    def value(self, state: State) -> Array:
        """Return E."""
        return self.f(state) + self.g(state)

    def grad_f(self, state: State) -> State:
        """Return the Euclidean gradient of f, with zeros in slots that f does not read."""
        return self._gathered(state, [term.grad(state) for term in self.smooth])

    def L_apply(self, state: State, direction: State) -> State:  # noqa: N802 - the field's name
        """Return the Hessian of f at a state, applied to a direction."""
        return self._gathered(state, [term.hessian_apply(state, direction) for term in self.smooth])

    def f_difference(self, state: State, direction: State) -> tuple[Array, Array]:
        """Return f(z + d) - f(z) without cancellation, and the size of the terms summed."""
        parts = [term.difference(state, direction) for term in self.smooth]
        return _total([one for one, _ in parts], state), _total([two for _, two in parts], state)

    def g_difference(self, state: State, direction: State) -> tuple[Array, Array]:
        """Return g(z + d) - g(z) entry by entry, and the size of the terms summed."""
        changes: list[Array] = []
        for term in self.nonsmooth:
            slot = term.variable
            u, d = term.operator.matvec(state[slot]), term.operator.matvec(direction[slot])
            changes.append(term.weight * term.penalty.difference(u, d))
        return _total(changes, state), _total([jnp.abs(one) for one in changes], state)

    def _gathered(self, state: State, parts: list[State]) -> State:
        total = {slot: jnp.zeros_like(x) for slot, x in state.items()}
        for part in parts:
            for slot, value in part.items():
                total[slot] = total[slot] + value
        return total


def _total(values: list[Array], state: State) -> Array:
    dtype = next(iter(state.values())).dtype
    return sum(values, jnp.zeros((), dtype))


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
    return _total([jnp.sum(x * other[slot]) for slot, x in one.items()], one)


def norm(state: State) -> Array:
    """Return the Euclidean norm over all slots."""
    return jnp.sqrt(dot(state, state))
