"""Tight spectral graph wavelets, by Chebyshev polynomials of the graph's Laplacian.

Bands g_k(lambda) = sin((pi/2) cos^2(pi x)) on half-overlapping supports have squares that sum to
one (itersine; Perraudin et al., GSPBox 2014, section 3), so the exact frame is tight with c = 1.
Each band is applied as a polynomial of the Laplacian (Hammond, Vandergheynst, Gribonval, Appl.
Comput. Harmon. Anal. 30, 2011, section 6), so nothing is diagonalised. The frame is redundant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from temporal_fabric.flows.facts import Facts
from temporal_fabric.flows.operators import Dense, Frame, Operator, Shape, static
from temporal_fabric.flows.precision import host

if TYPE_CHECKING:
    from jax import Array

    from temporal_fabric.flows.precision import F64

__all__ = ["GraphWavelet", "graph_wavelet", "laplacian"]

_NEUMANN = 4


def laplacian(nodes: int, edges: Any) -> F64:
    """Return D - A of an undirected graph.

    Args:
        nodes: How many.
        edges: Rows (from, to) or (from, to, weight).
    """
    matrix = np.zeros((nodes, nodes))
    for one, other, *weight in np.asarray(edges, dtype=np.float64).tolist():
        i, j, w = int(one), int(other), weight[0] if weight else 1.0
        matrix[i, j] -= w
        matrix[j, i] -= w
        matrix[i, i] += w
        matrix[j, j] += w
    return matrix


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GraphWavelet:
    """Bands of a Laplacian; coefficients are (bands, *in_shape)."""

    laplacian: Operator
    coefficients: Array
    """(bands, order + 1) Chebyshev coefficients over [0, largest]."""

    largest: float = static()
    """A bound of the Laplacian's largest eigenvalue."""

    defect: float = static()
    """max |sum_k g_k^2 - 1| of the polynomials over [0, largest], on a fine grid."""

    @property
    def in_shape(self) -> Shape:
        """Shape of the signal."""
        return self.laplacian.in_shape

    @property
    def out_shape(self) -> Shape:
        """Shape of the coefficients, (bands, *in_shape)."""
        return (self.coefficients.shape[0], *self.in_shape)

    @property
    def dtype(self) -> str:
        """Dtype of the coefficients."""
        return str(self.coefficients.dtype)

    @property
    def frame(self) -> Frame:
        """More coefficients than samples."""
        return "redundant"

    @property
    def frame_constant(self) -> float:
        """The c of W'W = c I, up to ``defect``."""
        return 1.0

    def matvec(self, x: Array) -> Array:
        """Return all bands of x."""
        # T_0 x, T_1 x, ... are shared by the bands.
        at = self.coefficients[(...,) + (None,) * x.ndim]

        def next_degree(
            carry: tuple[Array, Array, Array], column: Array
        ) -> tuple[tuple[Array, Array, Array], None]:
            before, now, total = carry
            total += column * now[None]
            return (now, 2 * self._shifted(now) - before, total), None

        first = self._shifted(x)
        start = (x, first, at[:, 0] * x[None])
        (_, _, total), _ = jax.lax.scan(next_degree, start, jnp.moveaxis(at[:, 1:], 1, 0))
        return total

    def adjoint(self, y: Array) -> Array:
        """Return the sum of each band applied to its own coefficients."""
        # Clenshaw's recurrence on the summed coefficients: one run for all bands.
        at = self.coefficients[(...,) + (None,) * (y.ndim - 1)]

        def lower_degree(
            carry: tuple[Array, Array], column: Array
        ) -> tuple[tuple[Array, Array], None]:
            now, ahead = carry
            return ((column * y).sum(0) + 2 * self._shifted(now) - ahead, now), None

        none = jnp.zeros(self.in_shape, y.dtype)
        columns = jnp.moveaxis(at[:, 1:], 1, 0)
        (now, ahead), _ = jax.lax.scan(lower_degree, (none, none), columns, reverse=True)
        return (at[:, 0] * y).sum(0) + self._shifted(now) - ahead

    def inverse(self, u: Array) -> Array:
        """Return (W'W)^-1 W'u, by the Neumann series of the small defect."""
        x = start = self.adjoint(u)
        for _ in range(_NEUMANN):
            x = x + start - self.adjoint(self.matvec(x))
        return x

    def levels_of(self) -> F64:
        """Return the band's number: 0 is the smoothest."""
        bands = np.arange(self.out_shape[0], dtype=np.float64)
        return np.broadcast_to(bands.reshape(-1, *(1 for _ in self.in_shape)), self.out_shape)

    def facts(self) -> Facts:
        """Return the frame's upper bound."""
        return Facts().bounds((1 + self.defect) ** 0.5, "sum of squared bands on a fine grid")

    def _shifted(self, x: Array) -> Array:
        return self.laplacian.matvec(x) * (2 / self.largest) - x


def graph_wavelet(matrix: Any, bands: int, dtype: str, order: int = 80) -> GraphWavelet:
    """Return the wavelets of a Laplacian given as a symmetric matrix.

    Args:
        matrix: The Laplacian, (n, n).
        bands: How many, at least 2.
        dtype: float32 or float64.
        order: Degree of the polynomials; the frame is tight up to their error.
    """
    dense = host(matrix)
    # Gershgorin: no eigenvalue is above the largest absolute row sum.
    largest = float(np.abs(dense).sum(1).max())
    angles = (np.arange(order + 1) + 0.5) * np.pi / (order + 1)
    values = _bands(0.5 * (np.cos(angles) + 1), bands)
    basis = np.cos(np.outer(np.arange(order + 1), angles))
    coefficients = values @ basis.T * (2 / (order + 1))
    coefficients[:, 0] /= 2
    fine = np.polynomial.chebyshev.chebval(np.linspace(-1, 1, 20 * order), coefficients.T)
    defect = float(np.abs((fine**2).sum(0) - 1).max())
    n = dense.shape[0]
    operator = Dense(jnp.asarray(dense, dtype), (n,), (n,))
    return GraphWavelet(operator, jnp.asarray(coefficients, dtype), largest, defect)


def _bands(at: F64, bands: int) -> F64:
    """Return the bands at points of [0, 1]; their squares sum to 1."""
    scaled = at * (bands - 1)
    away = np.abs(scaled - np.arange(bands)[:, None])
    inside = np.sin(0.5 * np.pi * np.cos(0.5 * np.pi * np.minimum(away, 1.0)) ** 2)
    return np.where(away < 1, inside, 0.0)
