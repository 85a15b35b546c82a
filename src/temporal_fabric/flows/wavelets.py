"""Orthonormal wavelets, periodic, separable in any number of axes (Mallat's decomposition).

``dbN`` has N vanishing moments and 2N taps (Daubechies, Ten Lectures on Wavelets, 1992, section
6.1); ``haar`` is ``db1``. Coefficients stand in an array of the image's own shape, coarse ones
in the low corner. One level along one axis is a batch of small matrix products: XLA on a CPU
runs those several times faster than strided filters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from temporal_fabric.flows.operators import Shape, static
from temporal_fabric.flows.transforms import Orthonormal

if TYPE_CHECKING:
    from jax import Array

    from temporal_fabric.flows.precision import F64

__all__ = ["WAVELETS", "Wavelet", "deepest", "level_matrix", "lowpass"]

WAVELETS = {"haar": 1, "db4": 4, "db8": 8}
"""Name, and number of vanishing moments."""

_BLOCK = 32
"""Samples of one small product; at least the longest filter's overlap."""

_HAAR_BLOCK = 64
"""Longest block for which all Haar levels are one product."""


def deepest(shape: Shape) -> int:
    """Return how many levels a shape takes: each one halves every axis."""
    return min((n & -n).bit_length() - 1 for n in shape)


@lru_cache
def lowpass(name: str) -> tuple[float, ...]:
    """Return the scaling filter h, of 2N taps with norm 1 and sum sqrt(2), minimum phase.

    The trigonometric polynomial |h^|^2 = cos^2N(w/2) P(sin^2(w/2)), with
    P(y) = sum_k C(N-1+k, k) y^k, is factored by the roots of P; rounding of the roots is
    removed by Newton steps on the orthonormality of even shifts and the vanishing moments.
    """
    n = WAVELETS[name]
    half = [math.comb(n - 1 + k, k) for k in range(n)]
    h = np.ones(1)
    for y in np.roots(half[::-1]):
        # y = (2 - z - 1/z) / 4; of the two z, the one inside the circle.
        both = np.roots([1, 4 * y - 2, 1])
        h = np.convolve(h, [1, -both[np.argmin(np.abs(both))]])
    for _ in range(n):
        h = np.convolve(h, [1, 1])
    taps = np.real(h)
    taps *= math.sqrt(2) / taps.sum()
    for _ in range(4):
        taps = taps - np.linalg.lstsq(*_conditions(taps, n), rcond=None)[0]
    return tuple(float(tap) for tap in taps)


def _conditions(taps: F64, moments: int) -> tuple[F64, F64]:
    """Return the Jacobian and the residual of Daubechies' equations."""
    length = len(taps)
    rows: list[F64] = []
    left: list[float] = []
    for shift in range(0, length, 2):
        row = np.zeros(length)
        row[: length - shift] += taps[shift:]
        row[shift:] += taps[: length - shift]
        rows.append(row)
        left.append(float(taps[shift:] @ taps[: length - shift]) - (shift == 0))
    at = np.arange(length) / length
    for moment in range(moments):
        row = at**moment * (-1.0) ** np.arange(length)
        rows.append(row)
        left.append(float(row @ taps))
    return np.array(rows), np.array(left)


def level_matrix(name: str, n: int) -> F64:
    """Return one level on n samples as an n x n orthogonal matrix: averages, then details."""
    low = np.array(lowpass(name))
    high = low[::-1] * (-1.0) ** np.arange(len(low))
    matrix = np.zeros((n, n))
    for k in range(n // 2):
        at = (2 * k + np.arange(len(low))) % n
        np.add.at(matrix[k], at, low)
        np.add.at(matrix[n // 2 + k], at, high)
    return matrix


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Wavelet(Orthonormal):
    """A periodic orthonormal wavelet transform over all axes."""

    name: str = static()
    levels: int = static()
    in_shape: Shape = static()
    dtype: str = static()

    def matvec(self, x: Array) -> Array:
        """Return the coefficients."""
        if self._is_one_product:
            return _haar_analysis(x, self.levels)
        u = x
        for level in range(self.levels):
            low = self._low(level)
            part = u[low]
            for axis in range(x.ndim):
                part = _along(part, axis, self.name, inverse=False)
            u = part if level == 0 else u.at[low].set(part)
        return u

    def adjoint(self, y: Array) -> Array:
        """Return W'y, which is W^-1 y."""
        if self._is_one_product:
            return _haar_synthesis(y, self.levels)
        x = y
        for level in reversed(range(self.levels)):
            low = self._low(level)
            part = x[low]
            for axis in reversed(range(y.ndim)):
                part = _along(part, axis, self.name, inverse=True)
            x = part if level == 0 else x.at[low].set(part)
        return x

    def levels_of(self) -> F64:
        """Return 0 for averages, 1 for the coarsest details, ``levels`` for the finest."""
        scales = np.full(self.in_shape, float(self.levels))
        for level in range(1, self.levels + 1):
            scales[self._low(level)] = self.levels - level
        return scales

    @property
    def _is_one_product(self) -> bool:
        return self.name == "haar" and len(self.in_shape) == 1 and 2**self.levels <= _HAAR_BLOCK

    def _low(self, level: int) -> tuple[slice, ...]:
        return tuple(slice(n >> level) for n in self.in_shape)


def _along(x: Array, axis: int, name: str, *, inverse: bool) -> Array:
    moved = jnp.moveaxis(x, axis, -1)
    done = _synthesis(moved, name) if inverse else _analysis(moved, name)
    return jnp.moveaxis(done, -1, axis)


def _block(n: int, overlap: int) -> int | None:
    """Return the block length for n samples, or None where one dense product does."""
    block = min(n & -n, _BLOCK)
    return block if block >= max(overlap, 2) and n > 2 * _BLOCK else None


@lru_cache
def _window(name: str, block: int) -> F64:
    """Return the product of one block: (block + overlap) samples to its averages and details."""
    overlap = 2 * WAVELETS[name] - 2
    wide = level_matrix(name, 2 * (block + overlap))
    half = block + overlap
    rows = [*range(block // 2), *range(half, half + block // 2)]
    return np.ascontiguousarray(wide[rows, : block + overlap].T)


def _analysis(x: Array, name: str) -> Array:
    n = x.shape[-1]
    overlap = 2 * WAVELETS[name] - 2
    block = _block(n, overlap)
    if block is None:
        return x @ jnp.asarray(level_matrix(name, n).T, x.dtype)
    blocks = x.reshape(*x.shape[:-1], n // block, block)
    if overlap:
        ahead = jnp.roll(blocks[..., :overlap], -1, -2)
        blocks = jnp.concatenate([blocks, ahead], -1)
    both = blocks @ _whole(_window(name, block), x.dtype)
    half = (*x.shape[:-1], n // 2)
    parts = [both[..., : block // 2].reshape(half), both[..., block // 2 :].reshape(half)]
    return jnp.concatenate(parts, -1)


def _synthesis(u: Array, name: str) -> Array:
    n = u.shape[-1]
    overlap = 2 * WAVELETS[name] - 2
    block = _block(n, overlap)
    if block is None:
        return u @ jnp.asarray(level_matrix(name, n), u.dtype)
    half = (*u.shape[:-1], n // block, block // 2)
    parts = [u[..., : n // 2].reshape(half), u[..., n // 2 :].reshape(half)]
    windows = jnp.concatenate(parts, -1) @ _whole(_window(name, block).T, u.dtype)
    blocks = windows[..., :block]
    if overlap:
        behind = jnp.roll(windows[..., block:], 1, -2)
        blocks = blocks.at[..., :overlap].add(behind)
    return blocks.reshape(u.shape)


def _whole(matrix: F64, dtype: Any) -> Array:
    """Return a matrix that XLA takes as it is.

    The product of joined parts with a constant is otherwise split into one product for each part,
    and their sum is made anew by every reader.
    """
    kept: Array = jax.lax.optimization_barrier(jnp.asarray(matrix, dtype))
    return kept


@lru_cache
def _haar_matrix(levels: int) -> F64:
    size = 2**levels
    matrix = np.eye(size)
    for level in range(levels):
        n = size >> level
        matrix[:n] = level_matrix("haar", n) @ matrix[:n]
    return matrix


def _haar_bands(levels: int) -> list[slice]:
    """Return which coefficients of a block belong to each band, coarse first."""
    return [slice(0, 1), *(slice(2**k, 2 ** (k + 1)) for k in range(levels))]


def _haar_analysis(x: Array, levels: int) -> Array:
    size = 2**levels
    blocks = x.reshape(-1, size) @ jnp.asarray(_haar_matrix(levels).T, x.dtype)
    return jnp.concatenate([blocks[:, band].reshape(-1) for band in _haar_bands(levels)])


def _haar_synthesis(u: Array, levels: int) -> Array:
    size = 2**levels
    count = u.shape[0] // size
    parts: list[Array] = []
    for band in _haar_bands(levels):
        width = band.stop - band.start
        at = band.start * count
        parts.append(u[at : at + width * count].reshape(count, width))
    blocks = jnp.concatenate(parts, 1) @ _whole(_haar_matrix(levels), u.dtype)
    return blocks.reshape(-1)
