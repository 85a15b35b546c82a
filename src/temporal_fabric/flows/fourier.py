"""The discrete Fourier transform as a lens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from temporal_fabric.flows.operators import Shape, static
from temporal_fabric.flows.transforms import Orthonormal

if TYPE_CHECKING:
    from jax import Array

    from temporal_fabric.flows.precision import F64

__all__ = ["FourierTransform"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FourierTransform(Orthonormal):
    """The unitary DFT of a real array over all axes; coefficients are complex.

    W'W = I on real arrays. W W' = I on the coefficients of real arrays, a subspace that every
    penalty of moduli keeps: there the step is the prox.
    """

    in_shape: Shape = static()
    dtype: str = static()

    def matvec(self, x: Array) -> Array:
        """Return the coefficients."""
        return jnp.fft.fftn(x, norm="ortho")

    def adjoint(self, y: Array) -> Array:
        """Return the real part of the inverse DFT, the adjoint on real arrays."""
        return jnp.fft.ifftn(y, norm="ortho").real

    def levels_of(self) -> F64:
        """Return octaves of frequency: 0 for the mean, then one more each time it doubles."""
        frequency = np.zeros(self.in_shape)
        for axis, n in enumerate(self.in_shape):
            cycles = np.abs(np.fft.fftfreq(n, 1 / n))
            cycles = cycles.reshape([-1 if at == axis else 1 for at in range(len(self.in_shape))])
            frequency = np.maximum(frequency, cycles)
        octaves: F64 = np.floor(np.log2(2 * np.maximum(frequency, 0.5)))
        return octaves
