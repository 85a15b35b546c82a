"""Penalties: functions with an exact prox, their conjugates, and what is known about them.

Every penalty here is one-homogeneous or an indicator, so the prox of t * penalty is the penalty's
own with a larger step, and its conjugate is an indicator or a support function. The contract is
on `Penalty`; penalties over groups are in ``group_penalties``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import jax
import jax.numpy as jnp
from optax import projections

from temporal_fabric.flows.operators import static
from temporal_fabric.flows.precision import host

if TYPE_CHECKING:
    from jax import Array

__all__ = ["L0", "L1", "Box", "Nonnegative", "Penalty", "Simplex", "Traits"]


@dataclass(frozen=True)
class Traits:
    """What is proved of a penalty p, on the host."""

    convex: bool = True
    separable: bool = False
    """p is a sum over entries, so its prox takes a step for each entry: a diagonal metric."""

    coercive: bool = False
    """p(u) grows without bound with |u|: a minimiser of f + p exists for f bounded below."""

    compact: bool = False
    """p is infinite outside a bounded set."""

    nonnegative: bool = False
    """p is infinite unless u >= 0."""


class Penalty(Protocol):
    """A proper, lower semicontinuous function p of an array u, real or complex."""

    def value(self, u: Array) -> Array:
        """Return p(u), a scalar; infinite outside the domain."""
        ...

    def prox(self, u: Array, step: Array) -> Array:
        """Return argmin_v p(v) + |v - u|^2 / (2 step), exactly.

        Args:
            u: Any array.
            step: Positive; in the shape of u only where the traits say ``separable``.
        """
        ...

    def conjugate(self, v: Array) -> Array:
        """Return p*(v) = sup_u <v, u> - p(u), a scalar; infinite outside its domain."""
        ...

    def dual_scale(self, v: Array) -> Array:
        """Return an s in [0, 1], the largest where it is known, for which p*(s v) is finite."""
        ...

    def difference(self, u: Array, d: Array) -> tuple[Array, Array]:
        """Return p(u + d) - p(u), summed entry by entry, and the sum of the entries' moduli."""
        ...

    def traits(self) -> Traits:
        """Return what is proved of p."""
        ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class L1:
    """p(u) = sum w |u|, with weights of one entry or of u's shape."""

    weights: Array

    def value(self, u: Array) -> Array:
        """Return the weighted sum of moduli."""
        return jnp.sum(self.weights * jnp.abs(u))

    def prox(self, u: Array, step: Array) -> Array:
        """Return u, its moduli lowered by step * w."""
        return shrunk(u, jnp.abs(u), step * self.weights)

    def conjugate(self, v: Array) -> Array:
        """Return the indicator of |v| <= w."""
        return indicator(jnp.all(jnp.abs(v) <= self.weights), self.weights)

    def dual_scale(self, v: Array) -> Array:
        """Return min(1, min w / |v|)."""
        return fitting(jnp.abs(v), jnp.broadcast_to(self.weights, v.shape))

    def difference(self, u: Array, d: Array) -> tuple[Array, Array]:
        """Return the summed differences."""
        return summed(self.weights * (jnp.abs(u + d) - jnp.abs(u)))

    def traits(self) -> Traits:
        """Coercive where every weight is positive."""
        return Traits(separable=True, coercive=bool((host(self.weights) > 0).all()))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class L0:
    """p(u) = the number of entries that are not zero, times w; not convex."""

    weights: Array

    def value(self, u: Array) -> Array:
        """Return the weighted count."""
        return jnp.sum(self.weights * (u != 0).astype(self.weights.dtype))

    def prox(self, u: Array, step: Array) -> Array:
        """Return u where |u|^2 > 2 step w, else zero."""
        return jnp.where(jnp.abs(u) ** 2 > 2 * step * self.weights, u, 0)

    def conjugate(self, v: Array) -> Array:
        """Return the indicator of v = 0: the biconjugate is zero, so no dual bound comes of it."""
        return indicator(jnp.all(v == 0), self.weights)

    def dual_scale(self, v: Array) -> Array:
        """Return 0."""
        del v
        return jnp.zeros((), self.weights.dtype)

    def difference(self, u: Array, d: Array) -> tuple[Array, Array]:
        """Return the change of the count."""
        appeared = ((u + d) != 0).astype(self.weights.dtype)
        return summed(self.weights * (appeared - (u != 0).astype(self.weights.dtype)))

    def traits(self) -> Traits:
        """Not convex, not coercive."""
        return Traits(convex=False, separable=True)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Box:
    """The indicator of low <= u <= high; bounds of one entry or of u's shape."""

    low: Array
    high: Array

    def value(self, u: Array) -> Array:
        """Return 0 inside, infinity outside."""
        return indicator(jnp.all((u >= self.low) & (u <= self.high)), self.low)

    def prox(self, u: Array, step: Array) -> Array:
        """Return u, clipped."""
        del step
        return jnp.clip(u, self.low, self.high)

    def conjugate(self, v: Array) -> Array:
        """Return sum max(low v, high v)."""
        return jnp.sum(jnp.maximum(_product(self.low, v), _product(self.high, v)))

    def dual_scale(self, v: Array) -> Array:
        """Return 1 where both bounds are finite, else what an infinite one leaves."""
        low = jnp.isfinite(self.low) | (v >= 0)
        high = jnp.isfinite(self.high) | (v <= 0)
        return jnp.all(low & high).astype(v.dtype)

    def difference(self, u: Array, d: Array) -> tuple[Array, Array]:
        """Return 0 for two points inside, up to the rounding of u + d."""
        return entered(self.value(u), self.prox(u + d, u), u, d)

    def traits(self) -> Traits:
        """Compact where both bounds are finite."""
        low, high = host(self.low), host(self.high)
        compact = bool((abs(low) < float("inf")).all() and (abs(high) < float("inf")).all())
        return Traits(
            separable=True, coercive=compact, compact=compact, nonnegative=bool((low >= 0).all())
        )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Nonnegative:
    """The indicator of u >= 0."""

    dtype: str = static()

    def value(self, u: Array) -> Array:
        """Return 0 inside, infinity outside."""
        return indicator(jnp.all(u >= 0), u)

    def prox(self, u: Array, step: Array) -> Array:
        """Return max(u, 0)."""
        del step
        return jnp.maximum(u, 0)

    def conjugate(self, v: Array) -> Array:
        """Return the indicator of v <= 0."""
        return indicator(jnp.all(v <= 0), v)

    def dual_scale(self, v: Array) -> Array:
        """Return 1 for v <= 0, else 0."""
        return jnp.all(v <= 0).astype(v.dtype)

    def difference(self, u: Array, d: Array) -> tuple[Array, Array]:
        """Return 0 for two points inside, up to the rounding of u + d."""
        return entered(self.value(u), self.prox(u + d, u), u, d)

    def traits(self) -> Traits:
        """A cone."""
        return Traits(separable=True, nonnegative=True)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Simplex:
    """The indicator of u >= 0 with sum u = total."""

    total: Array

    def value(self, u: Array) -> Array:
        """Return 0 up to rounding of the sum, infinity outside."""
        slack = 8 * u.size * jnp.finfo(u.dtype).eps * self.total
        inside = jnp.all(u >= 0) & (jnp.abs(jnp.sum(u) - self.total) <= slack)
        return indicator(inside, u)

    def prox(self, u: Array, step: Array) -> Array:
        """Return the nearest point of the simplex."""
        del step
        # optax mixes its ranks with floats; the result has u's dtype.
        with jax.numpy_dtype_promotion("standard"):
            nearest: Array = projections.projection_simplex(u.reshape(-1), self.total)
        return nearest.reshape(u.shape).astype(u.dtype)

    def conjugate(self, v: Array) -> Array:
        """Return total * max v."""
        return self.total * jnp.max(v)

    def dual_scale(self, v: Array) -> Array:
        """Return 1."""
        return jnp.ones((), v.dtype)

    def difference(self, u: Array, d: Array) -> tuple[Array, Array]:
        """Return 0 for two points inside, up to the rounding of u + d."""
        return entered(self.value(u), self.prox(u + d, u), u, d)

    def traits(self) -> Traits:
        """Compact."""
        return Traits(coercive=True, compact=True, nonnegative=True)


def indicator(inside: Array, like: Array) -> Array:
    """Return 0 where a condition holds, else infinity, in the real dtype of an array."""
    return jnp.where(inside, 0.0, jnp.inf).astype(jnp.finfo(like.dtype).dtype)


def summed(each: Array) -> tuple[Array, Array]:
    """Return the sum of entries, and that of their moduli."""
    return jnp.sum(each), jnp.sum(jnp.abs(each))


def entered(before: Array, nearest: Array, u: Array, d: Array) -> tuple[Array, Array]:
    """Return the change of an indicator from u to u + d, given the value at u.

    Args:
        before: Indicator at u.
        nearest: Projection of u + d: it is inside where the two agree up to rounding.
        u: The first point.
        d: The way to the second.
    """
    slack = 8 * jnp.finfo(u.dtype).eps * (jnp.max(jnp.abs(u)) + jnp.max(jnp.abs(d)))
    after = indicator(jnp.all(jnp.abs(u + d - nearest) <= slack), u)
    return jnp.where(jnp.isfinite(before), after, -jnp.inf), jnp.zeros_like(after)


def shrunk(u: Array, size: Array, by: Array) -> Array:
    """Return u scaled so that ``size``, its modulus or norm, falls by ``by`` or to zero."""
    kept = jnp.maximum(size - by, 0)
    return u * (kept / jnp.where(size > 0, size, 1)).astype(u.dtype)


def fitting(size: Array, limit: Array) -> Array:
    """Return the largest s <= 1 with s * size <= limit everywhere, on the safe side of rounding."""
    room = jnp.where(size > limit, limit / jnp.where(size > 0, size, 1), 1)
    smallest = jnp.min(room)
    return jnp.where(smallest < 1, smallest * (1 - 4 * jnp.finfo(room.dtype).eps), 1)


def _product(bound: Array, v: Array) -> Array:
    # An infinite bound times zero is zero in a support function.
    return jnp.where(v == 0, 0, bound * jnp.where(v == 0, 1, v))
