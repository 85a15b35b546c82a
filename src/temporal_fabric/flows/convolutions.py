"""Convolution: circular by FFT, or separable by taps along each axis with a chosen boundary.

A kernel has odd length along every axis and is centred at its middle. Images are not flipped:
(A x)_i = sum_k h_k x_{i-k}.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np

from temporal_fabric.flows.facts import LARGEST_DENSE, Facts
from temporal_fabric.flows.operators import Shape, static
from temporal_fabric.flows.precision import complex_of, host, real_of

if TYPE_CHECKING:
    from jax import Array
    from numpy.typing import NDArray

    from temporal_fabric.flows.precision import F64

__all__ = [
    "BOUNDARIES",
    "Boundary",
    "FourierConvolution",
    "SeparableConvolution",
    "fourier_convolution",
    "gaussian_taps",
]

Boundary = Literal["periodic", "zero", "symmetric", "edge"]
BOUNDARIES: dict[Boundary, str] = {
    "periodic": "wrap",
    "zero": "constant",
    "symmetric": "symmetric",
    "edge": "edge",
}
"""Boundary, and the name that ``pad`` has for it."""


def gaussian_taps(sigma: float, radius: int | None = None) -> F64:
    """Return the 2*radius + 1 samples of a Gaussian, with sum 1.

    Args:
        sigma: Standard deviation, in pixels.
        radius: Where it is cut off; by default 9 sigma, where nothing is left in float64.
    """
    reach = max(1, math.ceil(9 * sigma)) if radius is None else radius
    at = np.arange(-reach, reach + 1)
    taps: F64 = np.exp(-(at**2) / (2 * sigma**2))
    return taps / float(taps.sum())


_BLOCK = 32
"""Samples of one small product; at least as many as two reaches of its kernel."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FourierConvolution:
    """Circular convolution, by the real FFT of its kernel."""

    symbol: Array
    """``rfftn`` of the kernel, moved to the origin and padded to ``in_shape``; complex."""

    in_shape: Shape = static()

    @property
    def out_shape(self) -> Shape:
        """Shape of the result."""
        return self.in_shape

    @property
    def dtype(self) -> str:
        """Real dtype with the symbol's precision."""
        return real_of(str(self.symbol.dtype))

    def matvec(self, x: Array) -> Array:
        """Return h * x."""
        return jnp.fft.irfftn(self.symbol * jnp.fft.rfftn(x), s=self.in_shape)

    def adjoint(self, y: Array) -> Array:
        """Return the correlation of h with y."""
        return jnp.fft.irfftn(self.symbol.conj() * jnp.fft.rfftn(y), s=self.in_shape)

    def facts(self) -> Facts:
        """Return the full symbol and the norm, its largest modulus."""
        half = np.asarray(self.symbol, dtype=np.complex128)
        full = np.fft.fftn(np.fft.irfftn(half, s=self.in_shape, axes=range(len(self.in_shape))))
        largest = float(np.abs(full).max())
        flat = float(np.abs(full.imag).max()) <= 64 * float(np.finfo(np.float64).eps) * largest
        return _circular(full, symmetric=flat)


def fourier_convolution(kernel: Any, shape: Shape, dtype: str) -> FourierConvolution:
    """Return the circular convolution with a kernel given on its own small grid.

    Args:
        kernel: Odd length along every axis, none longer than ``shape``.
        shape: Of the arrays to be convolved.
        dtype: float32 or float64.
    """
    small = host(kernel)
    placed = np.zeros(shape)
    placed[tuple(slice(n) for n in small.shape)] = small
    placed = np.roll(placed, [-(n // 2) for n in small.shape], range(len(shape)))
    symbol = np.fft.rfftn(placed)
    return FourierConvolution(jnp.asarray(symbol, complex_of(dtype)), shape)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SeparableConvolution:
    """One short kernel along each axis, one after the other."""

    taps: tuple[Array, ...]
    """Odd length, one for each axis."""

    in_shape: Shape = static()
    boundary: Boundary = static()

    @property
    def out_shape(self) -> Shape:
        """Shape of the result."""
        return self.in_shape

    @property
    def dtype(self) -> str:
        """Dtype of the taps."""
        return str(self.taps[0].dtype)

    def matvec(self, x: Array) -> Array:
        """Return the convolution along all axes."""
        for axis, taps in enumerate(self.taps):
            x = _convolve(x, taps, axis, self.boundary)
        return x

    def adjoint(self, y: Array) -> Array:
        """Return the transpose: by formula where it is circular, else derived by JAX."""
        if self.boundary == "periodic":
            for axis, taps in enumerate(self.taps):
                y = _convolve(y, taps[::-1], axis, self.boundary)
            return y
        transpose = jax.linear_transpose(self.matvec, jax.ShapeDtypeStruct(y.shape, y.dtype))
        return cast("Array", transpose(y)[0])

    def facts(self) -> Facts:
        """Return the Kronecker factors, or the symbol where the boundary is periodic."""
        taps = [host(one) for one in self.taps]
        symmetric = all(bool((one == one[::-1]).all()) for one in taps)
        small = max(self.in_shape) <= LARGEST_DENSE
        factors = None
        if small:
            sides = zip(taps, self.in_shape, strict=True)
            factors = tuple(_axis_matrix(one, n, self.boundary) for one, n in sides)
        reach = tuple(len(one) // 2 for one in taps)
        if self.boundary == "periodic":
            symbol = _outer([_symbol(one, n) for one, n in zip(taps, self.in_shape, strict=True)])
            return _circular(symbol, symmetric=symmetric, factors=factors, reach=reach)
        return _bounded(factors, taps, self.boundary, reach, symmetric=symmetric)


def _bounded(
    factors: tuple[F64, ...] | None,
    taps: list[F64],
    boundary: Boundary,
    reach: tuple[int, ...],
    *,
    symmetric: bool,
) -> Facts:
    facts = Facts(
        factors=factors,
        reach=reach,
        adjoint="derived",
        # Padding by reflection or repetition is not symmetric even if the taps are.
        symmetric=symmetric and boundary == "zero",
    )
    if factors is not None:
        sides = [float(np.linalg.norm(one, 2)) for one in factors]
        return facts.bounds(math.prod(sides) * (1 + 1e-12), "product of the factors' norms")
    if boundary == "zero":
        return facts.bounds(math.prod(float(np.abs(one).sum()) for one in taps), "||h||_1")
    # One padded sample may count for `reach` others: a column sums to at most this.
    columns = math.prod(float(np.abs(one).sum()) * (1 + len(one) // 2) for one in taps)
    rows = math.prod(float(np.abs(one).sum()) for one in taps)
    return facts.bounds(math.sqrt(columns * rows), "sqrt(||A||_1 ||A||_inf), by padding")


def _circular(
    symbol: NDArray[np.complex128],
    *,
    symmetric: bool,
    factors: tuple[F64, ...] | None = None,
    reach: tuple[int, ...] | None = None,
) -> Facts:
    facts = Facts(
        fourier=symbol,
        gram_fourier=np.abs(symbol) ** 2,
        factors=factors,
        shift=(1,) * symbol.ndim,
        reach=reach,
        symmetric=symmetric,
    )
    largest = float(np.abs(symbol).max())
    return facts.bounds(largest, "largest modulus of the Fourier symbol")


def _convolve(x: Array, taps: Array, axis: int, boundary: Boundary) -> Array:
    reach, n = taps.shape[0] // 2, x.shape[axis]
    widths = [(0, 0)] * x.ndim
    widths[axis] = (reach, reach)
    padded = jnp.pad(x, widths, mode=BOUNDARIES[boundary])
    if 0 < 2 * reach <= _BLOCK and n % _BLOCK == 0 and n > _BLOCK:
        return _by_blocks(padded, taps, axis, n)
    total = jnp.zeros_like(x)
    for k in range(taps.shape[0]):
        start = 2 * reach - k
        total += taps[k] * jax.lax.slice_in_dim(padded, start, start + n, axis=axis)
    return total


def _by_blocks(padded: Array, taps: Array, axis: int, n: int) -> Array:
    """Return the convolution as a product of windows with one small band matrix.

    A sum of shifted slices is fused by XLA with what made its input, which is then made once
    for every tap. A product takes its input as it is.
    """
    reach = taps.shape[0] // 2
    moved = jnp.moveaxis(padded, axis, -1)
    blocks = moved[..., reach : reach + n].reshape(*moved.shape[:-1], n // _BLOCK, _BLOCK)
    # A window is a block between the ends of its neighbours; the padding is beside the outer two.
    # Slices of the padded array itself would be gathered sample by sample.
    first, last = moved[..., None, :reach], moved[..., None, reach + n :]
    before = jnp.concatenate([first, blocks[..., :-1, _BLOCK - reach :]], -2)
    after = jnp.concatenate([blocks[..., 1:, :reach], last], -2)
    windows = jnp.concatenate([before, blocks, after], -1)
    # Entry (i, j) is the tap that sample i of a window has in result j.
    at = 2 * reach - (np.arange(_BLOCK + 2 * reach)[:, None] - np.arange(_BLOCK))
    inside = (at >= 0) & (at <= 2 * reach)
    band = jnp.where(inside, taps[np.clip(at, 0, 2 * reach)], jnp.zeros((), taps.dtype))
    # Hidden, or the product of joined parts becomes a sum of products made anew by every reader.
    band = jax.lax.optimization_barrier(band)
    return jnp.moveaxis((windows @ band).reshape(*moved.shape[:-1], n), -1, axis)


def _axis_matrix(taps: F64, n: int, boundary: Boundary) -> F64:
    reach = len(taps) // 2
    mode = cast("Any", BOUNDARIES[boundary])
    padded = np.pad(np.eye(n), ((reach, reach), (0, 0)), mode=mode)
    starts = [2 * reach - k for k in range(len(taps))]
    parts = [tap * padded[at : at + n] for tap, at in zip(taps, starts, strict=True)]
    total: F64 = np.add.reduce(parts)
    return total


def _symbol(taps: F64, n: int) -> NDArray[np.complex128]:
    placed = np.zeros(n)
    np.add.at(placed, (np.arange(len(taps)) - len(taps) // 2) % n, taps)
    return np.fft.fft(placed)


def _outer(sides: list[NDArray[np.complex128]]) -> NDArray[np.complex128]:
    total = sides[0]
    for side in sides[1:]:
        total = total[..., None] * side
    return total
