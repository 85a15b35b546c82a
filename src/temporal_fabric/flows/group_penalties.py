"""Penalties over groups of entries: disjoint groups, and subtrees of a tree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from temporal_fabric.flows.operators import Shape, static
from temporal_fabric.flows.penalties import Traits, fitting, indicator, shrunk
from temporal_fabric.flows.precision import host

if TYPE_CHECKING:
    from collections.abc import Callable

    from jax import Array

__all__ = ["GroupL1", "LabelledGroupL1", "Tree", "wavelet_tree"]

_BISECTIONS = 60


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GroupL1:
    """p(u) = sum w |u_g|, a group for each index of the axes that are not in ``axes``.

    On a gradient, with ``axes`` = (0,), this is isotropic total variation.
    """

    weights: Array
    """One entry, or one for each group with ``axes`` kept at length 1."""

    axes: tuple[int, ...] = static()

    def value(self, u: Array) -> Array:
        """Return the weighted sum of norms."""
        return jnp.sum(self.weights * self._norms(u))

    def prox(self, u: Array, step: Array) -> Array:
        """Return u, the norm of each group lowered by step * w."""
        return shrunk(u, self._norms(u), step * self.weights)

    def conjugate(self, v: Array) -> Array:
        """Return the indicator of |v_g| <= w."""
        return indicator(jnp.all(self._norms(v) <= self.weights), self.weights)

    def dual_scale(self, v: Array) -> Array:
        """Return min(1, min w / |v_g|)."""
        norms = self._norms(v)
        return fitting(norms, jnp.broadcast_to(self.weights, norms.shape))

    def difference(self, u: Array, d: Array) -> tuple[Array, Array]:
        """Return the summed differences."""
        return _norms_differ(u, d, self._sums, self.weights)

    def traits(self) -> Traits:
        """Coercive where every weight is positive."""
        return Traits(coercive=bool((host(self.weights) > 0).all()))

    def _norms(self, u: Array) -> Array:
        return jnp.sqrt(self._sums(jnp.abs(u) ** 2))

    def _sums(self, each: Array) -> Array:
        return jnp.sum(each, axis=self.axes, keepdims=True)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LabelledGroupL1:
    """p(u) = sum w_g |u_g| over groups of any shape, by a label for each entry."""

    weights: Array
    """(groups,)"""

    labels: Array
    """Whole numbers from 0 to groups - 1, in the shape of u."""

    def value(self, u: Array) -> Array:
        """Return the weighted sum of norms."""
        return jnp.sum(self.weights * self._norms(u))

    def prox(self, u: Array, step: Array) -> Array:
        """Return u, the norm of each group lowered by step * w."""
        return shrunk(u, self._norms(u)[self.labels], step * self.weights[self.labels])

    def conjugate(self, v: Array) -> Array:
        """Return the indicator of |v_g| <= w_g."""
        return indicator(jnp.all(self._norms(v) <= self.weights), self.weights)

    def dual_scale(self, v: Array) -> Array:
        """Return min(1, min w_g / |v_g|)."""
        return fitting(self._norms(v), self.weights)

    def difference(self, u: Array, d: Array) -> tuple[Array, Array]:
        """Return the summed differences."""
        return _norms_differ(u, d, self._sums, self.weights)

    def traits(self) -> Traits:
        """Coercive where every weight is positive."""
        return Traits(coercive=bool((host(self.weights) > 0).all()))

    def _norms(self, u: Array) -> Array:
        return jnp.sqrt(self._sums(jnp.abs(u) ** 2))

    def _sums(self, each: Array) -> Array:
        groups = self.weights.shape[0]
        return jax.ops.segment_sum(each.reshape(-1), self.labels.reshape(-1), groups)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Tree:
    """p(u) = sum over nodes of w_i |u restricted to the subtree of node i|.

    The prox is exact in one pass from the leaves to the roots (Jenatton, Mairal, Obozinski, Bach,
    J. Mach. Learn. Res. 12, 2011, Theorem 1). A subtree is only ever scaled, so its norm after
    the pass below is known without touching its entries again.
    """

    weights: Array
    """(nodes,), not negative."""

    parents: Array
    """(nodes,) of whole numbers, in raveled order; a root is its own parent."""

    depths: Array
    """(nodes,) of whole numbers, 0 for a root."""

    height: int = static()
    """The largest depth."""

    def value(self, u: Array) -> Array:
        """Return the weighted sum of norms of subtrees."""
        return jnp.sum(self._each(u))

    def prox(self, u: Array, step: Array) -> Array:
        """Return u, each entry scaled by the factors of all its ancestors and its own."""
        squares = jnp.abs(u.reshape(-1)) ** 2
        factors = jnp.ones_like(squares)
        for depth in range(self.height, -1, -1):
            norms = jnp.sqrt(squares)
            left = jnp.maximum(norms - step * self.weights, 0) / jnp.where(norms > 0, norms, 1)
            here = self.depths == depth
            factors = jnp.where(here, left, factors)
            squares = self._raised(squares, jnp.where(here, left**2 * squares, 0), depth)
        for depth in range(1, self.height + 1):
            inherited = factors * factors[self.parents]
            factors = jnp.where(self.depths == depth, inherited, factors)
        return u * factors.reshape(u.shape).astype(u.dtype)

    def conjugate(self, v: Array) -> Array:
        """Return the indicator of the dual ball, which is where the prox is zero (Moreau)."""
        one = jnp.ones((), self.weights.dtype)
        return indicator(jnp.all(self.prox(v, one) == 0), self.weights)

    def dual_scale(self, v: Array) -> Array:
        """Return a feasible scale, by bisection from below."""

        def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = ends
            middle = 0.5 * (low + high)
            fits = jnp.isfinite(self.conjugate(middle * v))
            return jnp.where(fits, middle, low), jnp.where(fits, high, middle)

        zero, one = jnp.zeros((), v.dtype), jnp.ones((), v.dtype)
        low, _ = jax.lax.fori_loop(0, _BISECTIONS, halve, (zero, one))
        return jnp.where(jnp.isfinite(self.conjugate(v)), one, low)

    def difference(self, u: Array, d: Array) -> tuple[Array, Array]:
        """Return the summed differences."""
        return _norms_differ(u.reshape(-1), d.reshape(-1), self._sums, self.weights)

    def traits(self) -> Traits:
        """Coercive where every root has a positive weight: roots contain everything."""
        roots = np.asarray(self.depths) == 0
        return Traits(coercive=bool((host(self.weights)[roots] > 0).all()))

    def _each(self, u: Array) -> Array:
        return self.weights * jnp.sqrt(self._sums(jnp.abs(u.reshape(-1)) ** 2))

    def _sums(self, each: Array) -> Array:
        """Return the sums over subtrees, in raveled order."""
        for depth in range(self.height, 0, -1):
            each = self._raised(each, jnp.where(self.depths == depth, each, 0), depth)
        return each

    def _raised(self, squares: Array, below: Array, depth: int) -> Array:
        """Add what stands at a depth to the parents."""
        if depth == 0:
            return squares
        return squares + jax.ops.segment_sum(below, self.parents, squares.shape[0])


def _norms_differ(
    u: Array, d: Array, sums: Callable[[Array], Array], weights: Array
) -> tuple[Array, Array]:
    """Return sum w_g (|u_g + d_g| - |u_g|), and the size that its rounding is measured by.

    As (2 <u_g, d_g> + |d_g|^2) / (|u_g + d_g| + |u_g|): two norms that agree in most digits are
    never subtracted, so that descent can be told to the end of a run.
    """
    squares = jnp.abs(d) ** 2
    both = jnp.sqrt(sums(jnp.abs(u + d) ** 2)) + jnp.sqrt(sums(jnp.abs(u) ** 2))
    share = weights / jnp.where(both > 0, both, 1)
    change = share * sums(2 * jnp.real(jnp.conj(u) * d) + squares)
    size = jnp.abs(share) * sums(2 * jnp.abs(u) * jnp.abs(d) + squares)
    return jnp.sum(change), jnp.sum(size)


def wavelet_tree(shape: Shape, levels: int, weights: Array) -> Tree:
    """Return the tree of wavelet coefficients in Mallat's layout.

    A detail's parent is the detail above it, at half the index in the same band. Details of the
    coarsest level and averages are roots.

    Args:
        shape: Of the coefficients.
        levels: Of the transform.
        weights: One entry, or one for each coefficient in their shape.
    """
    at = np.indices(shape)
    # How deep into the low corner every index is: the level whose details it belongs to.
    depth = np.full(shape, levels - 1)
    for level in range(1, levels + 1):
        low = np.stack([at[axis] < (n >> level) for axis, n in enumerate(shape)]).all(0)
        depth[low] = max(levels - level - 1, 0)
    halved = np.ravel_multi_index(tuple(np.asarray(one) // 2 for one in at), shape)
    own = np.arange(int(np.prod(shape))).reshape(shape)
    parents = np.where(depth > 0, halved, own)
    full = jnp.broadcast_to(weights, shape).reshape(-1)
    flat = jnp.asarray(parents.reshape(-1)), jnp.asarray(depth.reshape(-1))
    return Tree(full, *flat, height=max(levels - 1, 0))
