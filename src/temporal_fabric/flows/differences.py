"""The discrete gradient: forward differences along every axis."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp
import numpy as np

from temporal_fabric.flows.facts import Facts
from temporal_fabric.flows.operators import Shape, static

if TYPE_CHECKING:
    from jax import Array

__all__ = ["Gradient"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Gradient:
    """Forward differences, stacked along a new first axis.

    With boundary "free" the last difference along an axis is zero, as total variation has it;
    with "periodic" it wraps around.
    """

    in_shape: Shape = static()
    dtype: str = static()
    boundary: Literal["free", "periodic"] = static(default="free")

    @property
    def out_shape(self) -> Shape:
        """Shape of the differences, (number of axes, *in_shape)."""
        return (len(self.in_shape), *self.in_shape)

    def matvec(self, x: Array) -> Array:
        """Return the differences."""
        return jnp.stack([self._difference(x, axis) for axis in range(x.ndim)])

    def adjoint(self, y: Array) -> Array:
        """Return minus the divergence."""
        total = jnp.zeros(self.in_shape, y.dtype)
        for axis in range(len(self.in_shape)):
            part = y[axis]
            if self.boundary == "free":
                part = _without_last(part, axis)
            total += jnp.roll(part, 1, axis) - part
        return total

    def facts(self) -> Facts:
        """Return ||A||^2 = max sum 4 sin^2(w/2), or its bound 4 per axis for a free boundary."""
        axes = len(self.in_shape)
        if self.boundary == "free":
            # A'A is diagonal in the DCT, with 4 sin^2(pi k / 2n) < 4 along each axis.
            largest = sum(4 * math.sin(math.pi * (n - 1) / (2 * n)) ** 2 for n in self.in_shape)
            return Facts().bounds(math.sqrt(largest), "DCT symbol of the Laplacian")
        gram = np.zeros(self.in_shape)
        for axis, n in enumerate(self.in_shape):
            side = 4 * np.sin(np.pi * np.arange(n) / n) ** 2
            gram += side.reshape([-1 if at == axis else 1 for at in range(axes)])
        facts = Facts(gram_fourier=gram, shift=(1,) * axes)
        return facts.bounds(math.sqrt(float(gram.max())), "Fourier symbol of the Laplacian")

    def _difference(self, x: Array, axis: int) -> Array:
        ahead = jnp.roll(x, -1, axis) - x
        return ahead if self.boundary == "periodic" else _without_last(ahead, axis)


def _without_last(x: Array, axis: int) -> Array:
    at = (slice(None),) * axis + (-1,)
    return x.at[at].set(0)
