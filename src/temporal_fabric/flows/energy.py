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
from temporal_fabric.flows.primitives import multiscale, project, synthesise
from temporal_fabric.flows.states import State, total

if TYPE_CHECKING:
    from jax import Array

    from temporal_fabric.flows.losses import Loss
    from temporal_fabric.flows.operators import Operator
    from temporal_fabric.flows.penalties import Penalty

__all__ = [
    "Energy",
    "NonsmoothTerm",
    "QuadraticForm",
    "Smooth",
    "SmoothTerm",
    "State",
    "value_of",
]


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

    def image(self, state: State) -> Any:
        """Return what the part sees of a state, linear in it: A z.

        A scheme carries images along with its state, so that one A and one A' are all that an
        iteration applies, and A is applied to steps, whose differences do not cancel.
        """
        ...

    def value_at(self, image: Any) -> Array:
        """Return the energy from the image of a state."""
        ...

    def grad_at(self, image: Any) -> State:
        """Return the gradient from the image of a state."""
        ...

    def difference_at(self, image: Any, along: Any) -> tuple[Array, Array]:
        """Return `difference` from the images of a state and of a direction."""
        ...

    def bend_at(self, image: Any, along: Any) -> Array:
        """Return 2 (f(z + d) - f(z) - <grad f(z), d>), or a proved bound of it from above."""
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
        return self.value_at(self.predict(state))

    def grad(self, state: State) -> State:
        """Return weight * A' loss'(A x)."""
        return self.grad_at(self.predict(state))

    def hessian_apply(self, state: State, direction: State) -> State:
        """Return weight * A' diag(loss'') A d."""
        bend = self.weight * self.loss.curvature(self.predict(state)) * self.predict(direction)
        return {slot: op.adjoint(bend) for slot, op in self.operators.items()}

    def difference(self, state: State, direction: State) -> tuple[Array, Array]:
        """Return the loss's own difference along A d."""
        return self.difference_at(self.predict(state), self.predict(direction))

    def image(self, state: State) -> Array:
        """Return the prediction."""
        return self.predict(state)

    def value_at(self, image: Array) -> Array:
        """Return the weighted loss."""
        return self.weight * self.loss.value(image)

    def grad_at(self, image: Array) -> State:
        """Return weight * A' loss'."""
        residual = self.weight * self.loss.grad(image)
        return {slot: op.adjoint(residual) for slot, op in self.operators.items()}

    def difference_at(self, image: Array, along: Array) -> tuple[Array, Array]:
        """Return the loss's own difference."""
        change = self.weight * self.loss.difference(image, along)
        slope = self.weight * jnp.sum(jnp.abs(self.loss.grad(image) * along))
        return change, slope

    def bend_at(self, image: Array, along: Array) -> Array:
        """Return weight * M |A d|^2, or twice the loss's own excess where it has no M."""
        if self.loss.is_bounded:
            return self.weight * self.loss.steepest() * jnp.sum(along**2)
        change = self.loss.difference(image, along)
        return 2 * self.weight * (change - jnp.sum(self.loss.grad(image) * along))


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
        return self.value_at(self.image(state))

    def grad(self, state: State) -> State:
        """Return weight * (Q x - b)."""
        return self.grad_at(self.image(state))

    def hessian_apply(self, state: State, direction: State) -> State:
        """Return weight * Q d."""
        del state
        return {self.variable: self.weight * self.operator.matvec(direction[self.variable])}

    def difference(self, state: State, direction: State) -> tuple[Array, Array]:
        """Return <d, Q x - b> + d'Q d / 2."""
        return self.difference_at(self.image(state), self.image(direction))

    def image(self, state: State) -> tuple[Array, Array]:
        """Return x and Q x."""
        x = state[self.variable]
        return x, self.operator.matvec(x)

    def value_at(self, image: tuple[Array, Array]) -> Array:
        """Return <x, Q x / 2 - b>."""
        x, qx = image
        return self.weight * jnp.sum(x * (0.5 * qx - self.linear))

    def grad_at(self, image: tuple[Array, Array]) -> State:
        """Return Q x - b."""
        return {self.variable: self.weight * (image[1] - self.linear)}

    def difference_at(
        self, image: tuple[Array, Array], along: tuple[Array, Array]
    ) -> tuple[Array, Array]:
        """Return <d, Q x - b> + d'Q d / 2."""
        slope = along[0] * self.grad_at(image)[self.variable]
        bend = 0.5 * self.bend_at(image, along)
        return jnp.sum(slope) + bend, jnp.sum(jnp.abs(slope)) + jnp.abs(bend)

    def bend_at(self, image: tuple[Array, Array], along: tuple[Array, Array]) -> Array:
        """Return d'Q d."""
        del image
        return self.weight * jnp.sum(along[0] * along[1])


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
        """Return the prox of step * weight * penalty o K, for K K' = c I: see `transforms`."""
        c = jnp.asarray(getattr(self.operator, "frame_constant", 1.0), x.dtype)
        u = multiscale(x, self.operator)
        v = project(u, self.penalty, c * step * self.weight)
        return synthesise(x, u, v, self.operator)

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
        return total([term.value(state) for term in self.smooth], state)

    def g(self, state: State) -> Array:
        """Return the nonsmooth energy; infinite outside its domain."""
        return total([term.value(state) for term in self.nonsmooth], state)

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
        return total([one for one, _ in parts], state), total([two for _, two in parts], state)

    def g_difference(self, state: State, direction: State) -> tuple[Array, Array]:
        """Return g(z + d) - g(z) entry by entry, and the size of the terms summed."""
        before, along = self.coefficients(state), self.coefficients(direction)
        return self.g_difference_at(state, before, along)

    def g_difference_at(
        self, state: State, coefficients: tuple[Array, ...], along: tuple[Array, ...]
    ) -> tuple[Array, Array]:
        """Return `g_difference` from the coefficients of a state and of a direction."""
        parts = [
            (term.weight, term.penalty.difference(u, d))
            for term, u, d in zip(self.nonsmooth, coefficients, along, strict=True)
        ]
        changes = [weight * change for weight, (change, _) in parts]
        return total(changes, state), total([weight * size for weight, (_, size) in parts], state)

    def images(self, state: State) -> tuple[Any, ...]:
        """Return what each smooth term sees of a state; linear in it."""
        return tuple(term.image(state) for term in self.smooth)

    def coefficients(self, state: State) -> tuple[Array, ...]:
        """Return K z of each nonsmooth term."""
        return tuple(multiscale(state[term.variable], term.operator) for term in self.nonsmooth)

    def f_at(self, state: State, images: tuple[Any, ...]) -> Array:
        """Return f from the images of a state."""
        pairs = zip(self.smooth, images, strict=True)
        return total([term.value_at(image) for term, image in pairs], state)

    def grad_at(self, state: State, images: tuple[Any, ...]) -> State:
        """Return the gradient of f from the images of a state."""
        pairs = zip(self.smooth, images, strict=True)
        return self._gathered(state, [term.grad_at(image) for term, image in pairs])

    def f_difference_at(
        self, state: State, images: tuple[Any, ...], along: tuple[Any, ...]
    ) -> tuple[Array, Array]:
        """Return `f_difference` from the images of a state and of a direction."""
        triples = zip(self.smooth, images, along, strict=True)
        parts = [term.difference_at(image, by) for term, image, by in triples]
        return total([one for one, _ in parts], state), total([two for _, two in parts], state)

    def bend_at(self, state: State, images: tuple[Any, ...], along: tuple[Any, ...]) -> Array:
        """Return 2 (f(z + d) - f(z) - <grad f(z), d>), or a proved bound of it from above."""
        triples = zip(self.smooth, images, along, strict=True)
        return total([term.bend_at(image, by) for term, image, by in triples], state)

    def _gathered(self, state: State, parts: list[State]) -> State:
        total = {slot: jnp.zeros_like(x) for slot, x in state.items()}
        for part in parts:
            for slot, value in part.items():
                total[slot] = total[slot] + value
        return total


@jax.jit
def value_of(energy: Energy, state: State) -> Array:
    """Return E, by one program for all energies of a shape."""
    return energy.value(state)
