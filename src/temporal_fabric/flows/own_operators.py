"""An operator of the user's own, and the test that an adjoint is one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from temporal_fabric.flows.facts import Facts
from temporal_fabric.flows.operators import Operator, Shape, backward, forward, static
from temporal_fabric.flows.precision import complex_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from jax import Array

__all__ = ["OwnOperator", "adjoint_defect", "probe"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class OwnOperator:
    """A linear function, with the user's adjoint or the one that JAX derives."""

    parameters: Any
    """What both functions get as their first argument: a pytree of arrays, or None."""

    in_shape: Shape = static()
    out_shape: Shape = static()
    dtype: str = static()
    function: Callable[[Any, Array], Array] = static()
    transpose: Callable[[Any, Array], Array] | None = static(default=None)
    norm: float | None = static(default=None)
    """A bound of ||A|| that the user vouches for; it is not proved and is not in the facts."""

    def matvec(self, x: Array) -> Array:
        """Return the function's value."""
        return self.function(self.parameters, x)

    def adjoint(self, y: Array) -> Array:
        """Return the user's transpose, or the derived one."""
        if self.transpose is not None:
            return self.transpose(self.parameters, y)
        takes = jax.ShapeDtypeStruct(self.in_shape, jnp.dtype(self.dtype))
        return cast("Array", jax.linear_transpose(self.matvec, takes)(y)[0])

    def facts(self) -> Facts:
        """Return only where the adjoint comes from."""
        return Facts(adjoint="derived" if self.transpose is None else "user")


def probe(key: Array, shape: Shape, dtype: str, *, is_complex: bool = False) -> Array:
    """Return a Gaussian array for a test by probes."""
    if is_complex:
        return jax.random.normal(key, shape, jnp.dtype(complex_of(dtype)))
    return jax.random.normal(key, shape, jnp.dtype(dtype))


def adjoint_defect(operator: Operator, *, seed: int, probes: int = 3) -> float:
    """Return the largest relative difference of <A x, y> and <x, A'y> over Gaussian probes.

    The difference is taken relative to ||A x|| ||y|| + ||x|| ||A'y||, so that a right adjoint is
    near the unit roundoff, whatever the probes.

    Args:
        operator: The operator to test.
        seed: Of the probes.
        probes: How many pairs.
    """
    found: list[Array] = []
    for key in jax.random.split(jax.random.key(seed), probes):
        one, other = jax.random.split(key)
        x = probe(one, operator.in_shape, operator.dtype)
        ax = forward(operator, x)
        is_complex = jnp.issubdtype(ax.dtype, jnp.complexfloating)
        y = probe(other, operator.out_shape, operator.dtype, is_complex=bool(is_complex))
        found.append(_mismatch(x, y, ax, backward(operator, y)))
    # Not by max(): it would lose a NaN.
    return float(np.max(np.array(found)))


@jax.jit
def _mismatch(x: Array, y: Array, ax: Array, aty: Array) -> Array:
    difference = jnp.abs(jnp.vdot(ax, y).real - jnp.vdot(x, aty).real)
    size = _norm(ax) * _norm(y) + _norm(x) * _norm(aty)
    return difference / jnp.maximum(size, jnp.finfo(size.dtype).tiny)


def _norm(x: Array) -> Array:
    return jnp.sqrt(jnp.sum(jnp.abs(x) ** 2))
