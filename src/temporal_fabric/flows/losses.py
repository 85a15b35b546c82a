"""Smooth losses: elementwise convex functions of a prediction, with what duals need.

For a loss phi, ``curvature_bounds`` gives m <= phi'' <= M on its domain, from which the bounds of
the Hessian A' diag(phi'') A follow, and ``conjugate`` is phi*(v) = sup_r <v, r> - phi(r).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from temporal_fabric.flows.precision import host

if TYPE_CHECKING:
    from jax import Array

__all__ = ["Huber", "KullbackLeibler", "Loss", "Squared"]


class Loss(Protocol):
    """A convex function phi of a prediction r, summed over its entries."""

    def value(self, r: Array) -> Array:
        """Return phi(r), a scalar; infinite outside the domain."""
        ...

    def grad(self, r: Array) -> Array:
        """Return phi'(r), in the shape of r."""
        ...

    def curvature(self, r: Array) -> Array:
        """Return phi''(r), in the shape of r."""
        ...

    def curvature_bounds(self) -> tuple[float, float | None]:
        """Return proved m and M with m <= phi'' <= M; None where there is no M."""
        ...

    @property
    def is_bounded(self) -> bool:
        """Whether `steepest` is a bound that a step may be judged by."""
        ...

    def steepest(self) -> Array:
        """Return M as a traced scalar."""
        ...

    def conjugate(self, v: Array) -> Array:
        """Return phi*(v), a scalar; infinite outside its domain."""
        ...

    def difference(self, r: Array, d: Array) -> Array:
        """Return phi(r + d) - phi(r), in a form that does not cancel."""
        ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Squared:
    """phi(r) = |r - y|^2 / 2."""

    target: Array

    def value(self, r: Array) -> Array:
        """Return the loss."""
        return 0.5 * jnp.sum((r - self.target) ** 2)

    def grad(self, r: Array) -> Array:
        """Return the residual."""
        return r - self.target

    def curvature(self, r: Array) -> Array:
        """Return ones."""
        return jnp.ones_like(r)

    def curvature_bounds(self) -> tuple[float, float | None]:
        """Return that the curvature is one."""
        return 1.0, 1.0

    @property
    def is_bounded(self) -> bool:
        """Return that there is an M."""
        return True

    def steepest(self) -> Array:
        """Return one."""
        return jnp.ones((), self.target.dtype)

    def conjugate(self, v: Array) -> Array:
        """Return |v|^2 / 2 + <v, y>."""
        return 0.5 * jnp.sum(v**2) + jnp.sum(v * self.target)

    def difference(self, r: Array, d: Array) -> Array:
        """Return <d, r - y> + |d|^2 / 2."""
        return jnp.sum(d * (r - self.target)) + 0.5 * jnp.sum(d**2)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Huber:
    """Quadratic up to ``width`` away from the target, linear beyond (Huber, 1964)."""

    target: Array
    width: Array

    def value(self, r: Array) -> Array:
        """Return the loss."""
        return jnp.sum(self._each(r - self.target))

    def grad(self, r: Array) -> Array:
        """Return the residual, clipped."""
        return jnp.clip(r - self.target, -self.width, self.width)

    def curvature(self, r: Array) -> Array:
        """Return one inside the width, zero outside."""
        return (jnp.abs(r - self.target) <= self.width).astype(r.dtype)

    def curvature_bounds(self) -> tuple[float, float | None]:
        """Return 0 and 1."""
        return 0.0, 1.0

    @property
    def is_bounded(self) -> bool:
        """Return that there is an M."""
        return True

    def steepest(self) -> Array:
        """Return one."""
        return jnp.ones((), self.target.dtype)

    def conjugate(self, v: Array) -> Array:
        """Return |v|^2 / 2 + <v, y>, infinite where |v| is above the width."""
        inside = jnp.all(jnp.abs(v) <= self.width)
        return jnp.where(inside, 0.5 * jnp.sum(v**2) + jnp.sum(v * self.target), jnp.inf)

    def difference(self, r: Array, d: Array) -> Array:
        """Return the sum of the differences, entry by entry."""
        s = r - self.target
        return jnp.sum(self._each(s + d) - self._each(s))

    def _each(self, s: Array) -> Array:
        size = jnp.abs(s)
        return jnp.where(size <= self.width, 0.5 * s**2, self.width * (size - 0.5 * self.width))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class KullbackLeibler:
    """Poisson deviance phi(r) = (r + b) - y log(r + b) + y log y - y, for counts y >= 0.

    The curvature y / (r + b)^2 is bounded only for a background b > 0 and r >= 0, so a
    specification asks for both.
    """

    target: Array
    background: Array
    """In the shape of the target, positive."""

    def value(self, r: Array) -> Array:
        """Return the deviance, zero where r + b = y."""
        y, s = self.target, r + self.background
        safe = jnp.where(s > 0, s, 1)
        ratio = jnp.log(jnp.where(y > 0, y, 1) / safe)
        each = s - y + jnp.where(y > 0, y * ratio, 0)
        return jnp.sum(jnp.where(s > 0, each, jnp.inf))

    def grad(self, r: Array) -> Array:
        """Return 1 - y / (r + b)."""
        return 1 - self.target / (r + self.background)

    def curvature(self, r: Array) -> Array:
        """Return y / (r + b)^2."""
        return self.target / (r + self.background) ** 2

    def curvature_bounds(self) -> tuple[float, float | None]:
        """Return 0 and max y / b^2, which holds for r >= 0."""
        y, b = host(self.target), host(self.background)
        if not bool((b > 0).all()):
            return 0.0, None
        return 0.0, float(np.max(y / b**2)) * (1 + 1e-15)

    @property
    def is_bounded(self) -> bool:
        """Return that M holds for r >= 0 only: a step is judged by the deviance itself."""
        return False

    def steepest(self) -> Array:
        """Return max y / b^2."""
        return jnp.max(self.target / self.background**2)

    def conjugate(self, v: Array) -> Array:
        """Return -<v, b> - <y, log(1 - v)>, infinite unless v < 1 (v <= 1 where y = 0)."""
        gap = 1 - v
        inside = jnp.all((gap > 0) | ((self.target == 0) & (gap >= 0)))
        logs = jnp.where(self.target > 0, jnp.log(jnp.where(gap > 0, gap, 1)), 0)
        return jnp.where(inside, -jnp.sum(v * self.background + self.target * logs), jnp.inf)

    def difference(self, r: Array, d: Array) -> Array:
        """Return d - y log(1 + d / (r + b)), summed."""
        s = r + self.background
        each = d - self.target * jnp.log1p(d / s)
        return jnp.sum(jnp.where(s + d > 0, each, jnp.inf))
