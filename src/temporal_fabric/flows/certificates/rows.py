"""Row sums of L in the basis of the prox, exactly, without writing the n x n matrix.

Three structures make it cheap. A circular L has one row in the pixel basis, and 2^J along an axis
in a wavelet basis of J levels. A Kronecker product has row sums that are products of those of its
factors, in pixels and, band by band, in Mallat's separable basis. And where L reaches only so
far, one product answers for all columns of a colour (`probing`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from temporal_fabric.flows.certificates.bands import atoms, bands, support
from temporal_fabric.flows.certificates.curvature import spectrum_error
from temporal_fabric.flows.certificates.rounding import U, of_sum
from temporal_fabric.flows.facts import LARGEST_DENSE

if TYPE_CHECKING:
    from temporal_fabric.flows.certificates.bands import Band
    from temporal_fabric.flows.facts import Facts
    from temporal_fabric.flows.precision import F64
    from temporal_fabric.flows.wavelets import Wavelet

__all__ = ["Rows", "in_pixels", "in_wavelets", "nothing_but_mu"]


@dataclass(frozen=True)
class Rows:
    """Every different row of L, mu left out."""

    diagonal: F64
    """Lower bounds of L_ii."""

    off: F64
    """Upper bounds of sum_{j != i} |L_ij|."""

    labels: tuple[str, ...]
    """Names of the bands."""

    band: F64
    """For each row the index of its label."""

    method: str
    error: float
    """Largest amount that was added for rounding."""

    def ratio(self, mu: float) -> float:
        """Return max off / (diagonal + mu), infinite where a diagonal entry is not positive."""
        diagonal = self.diagonal + mu
        ratios = np.where(diagonal > 0, self.off / np.where(diagonal > 0, diagonal, 1), math.inf)
        return float(ratios.max()) * (1 + 4 * U)

    def worst(self, mu: float) -> str:
        """Return the name of the band with the largest ratio."""
        diagonal = np.maximum(self.diagonal + mu, np.finfo(np.float64).tiny)
        return self.labels[int(self.band[int(np.argmax(self.off / diagonal))])]

    def gershgorin(self) -> float:
        """Return min L_ii - sum |L_ij|, signed: a lower bound of the least eigenvalue."""
        return float((self.diagonal - self.off).min())

    def mu_for(self, bound: float) -> float:
        """Return the smallest mu with a ratio of at most ``bound``."""
        return max(0.0, float((self.off / bound - self.diagonal).max()))


def _one_band(diagonal: F64, off: F64, method: str, error: float) -> Rows:
    flat = diagonal.reshape(-1)
    return Rows(flat, off.reshape(-1), ("",), np.zeros(flat.shape), method, error)


def nothing_but_mu() -> Rows:
    """Return the rows of a multiple of the identity, which it is in every orthonormal basis."""
    return _one_band(np.zeros(1), np.zeros(1), "multiple of the identity", 0.0)


def in_pixels(facts: Facts) -> Rows | None:
    """Return the rows of L in the pixel basis, None where no structure gives them."""
    if facts.diagonal is not None:
        return _one_band(facts.diagonal, np.zeros(facts.diagonal.shape), "diagonal", 0.0)
    if facts.fourier is not None:
        kernel = np.fft.ifftn(facts.fourier.real).real
        centre = float(kernel.reshape(-1)[0])
        # A value of the kernel is a mean of spectral values, so it is as far off as they are.
        error = spectrum_error(facts.fourier.real)
        off = float(np.abs(kernel).sum()) - abs(centre)
        # The true kernel's 1-norm differs by the rounding of its n values.
        slack = error + kernel.size * U * float(np.abs(kernel).max())
        return _one_band(np.array([centre - error]), np.array([off + slack]), "circular", slack)
    if facts.factors is not None and max(one.shape[0] for one in facts.factors) <= LARGEST_DENSE:
        diagonal, total = np.ones(()), np.ones(())
        for factor in facts.factors:
            diagonal = np.multiply.outer(diagonal, np.diag(factor))
            total = np.multiply.outer(total, np.abs(factor).sum(1))
        return _of_sums(diagonal, total, "separable", sum(len(one) for one in facts.factors))
    if facts.matrix is not None:
        total = np.abs(facts.matrix).sum(1)
        return _of_sums(np.diag(facts.matrix), total, "matrix", len(facts.matrix))
    return None


def _of_sums(diagonal: F64, total: F64, method: str, terms: int) -> Rows:
    error = 2 * of_sum(terms) * float(total.max())
    return _one_band(diagonal - error, total - np.abs(diagonal) + error, method, error)


@dataclass(frozen=True)
class _Axis:
    """One factor in the bands of one axis."""

    diagonal: dict[Band, F64]
    sums: dict[tuple[Band, Band], F64]
    error: float
    """Of an entry of ``diagonal``; of ``sums`` it is ``sum_error``."""

    sum_error: float


def in_wavelets(facts: Facts, lens: Wavelet) -> Rows | None:
    """Return the rows of W L W' for an orthonormal wavelet, None where no structure gives them.

    With L the Kronecker product of L_a, |(W L W')_ij| is a product over the axes a of
    |<s, L_a s'>| for the one-dimensional atoms s, s' of i and j, so its sum over a band j is the
    product of one-dimensional sums.
    """
    if facts.diagonal is not None and float(np.ptp(facts.diagonal)) == 0.0:
        return _one_band(facts.diagonal[..., :1], np.zeros(1), "multiple of the identity", 0.0)
    axes = _axes(facts, lens)
    if axes is None:
        return None
    parts = [_band_rows(axes, one, lens.levels) for one in bands(lens.levels, len(axes))]
    labels = tuple(_label(one) for one in bands(lens.levels, len(axes)))
    owners = [np.full(diagonal.size, index) for index, (diagonal, _) in enumerate(parts)]
    return Rows(
        diagonal=np.concatenate([diagonal for diagonal, _ in parts]),
        off=np.concatenate([off for _, off in parts]),
        labels=labels,
        band=np.concatenate(owners).astype(np.float64),
        method=f"separable, {lens.name} with {lens.levels} levels",
        error=max(axis.sum_error for axis in axes),
    )


def _band_rows(axes: list[_Axis], band: tuple[Band, ...], levels: int) -> tuple[F64, F64]:
    low, high, total = np.ones(()), np.ones(()), np.zeros(())
    for axis, own in zip(axes, band, strict=True):
        entry = axis.diagonal[own]
        low = np.multiply.outer(low, np.maximum(entry - axis.error, 0))
        high = np.multiply.outer(high, entry + axis.error)
    for other in bands(levels, len(axes)):
        product = np.ones(())
        for axis, own, its in zip(axes, band, other, strict=True):
            product = np.multiply.outer(product, axis.sums[own, its] + axis.sum_error)
        total = total + product
    return low.reshape(-1), (total - low).reshape(-1) * (1 + 64 * U)


def _label(band: tuple[Band, ...]) -> str:
    letters = "".join("H" if detail else "L" for _, detail in band)
    return f"{letters} of level {band[0][0]}"


def _axes(facts: Facts, lens: Wavelet) -> list[_Axis] | None:
    if facts.fourier is not None:
        sides = _separated(facts.fourier.real)
        if sides is None:
            return None
        reach = facts.reach or (None,) * len(sides)
        found = [_circulant_axis(side, lens, far) for side, far in zip(sides, reach, strict=True)]
        return None if None in found else [one for one in found if one is not None]
    if facts.factors is None or max(len(one) for one in facts.factors) > LARGEST_DENSE:
        return None
    if len(facts.factors) != len(lens.in_shape):
        return None
    return [_axis(factor, lens, None, 0.0) for factor in facts.factors]


def _separated(spectrum: F64) -> list[F64] | None:
    """Return one symbol for each axis whose outer product is the symbol, or None."""
    if spectrum.ndim == 1:
        return [spectrum]
    corner = spectrum.reshape(-1)[0]
    if corner <= 0:
        return None
    sides: list[F64] = []
    product = np.ones(())
    for axis in range(spectrum.ndim):
        at = tuple(slice(None) if one == axis else 0 for one in range(spectrum.ndim))
        side = spectrum[at] * corner ** (1 / spectrum.ndim - 1)
        sides.append(side)
        product = np.multiply.outer(product, side)
    apart = float(np.abs(product - spectrum).max())
    return sides if apart <= spectrum_error(spectrum) else None


def _circulant_axis(side: F64, lens: Wavelet, reach: int | None) -> _Axis | None:
    """Return the table of a circulant factor, on a shorter circle where it is long.

    Entries between atoms further apart than kernel and atoms reach are zero, so on any circle
    long enough for both the same numbers come out. The symbol of a short kernel on a circle
    that divides this one is every so many-th value of its symbol here.
    """
    size, period = len(side), 1 << lens.levels
    if reach is not None:
        needed = 2 * reach + 2 * support(lens.name, lens.levels) + 1
        circles = (m for m in range(period, size, period) if size % m == 0 and m >= needed)
        side = side[:: size // next(circles, size)]
        if len(side) <= LARGEST_DENSE:
            kernel = np.fft.ifft(side).real
            return _axis(_circulant(kernel), lens, period, spectrum_error(side))
    return _cut_axis(side, lens)


def _cut_axis(side: F64, lens: Wavelet) -> _Axis | None:
    """Return the table of a circulant whose kernel is cut where nothing but rounding is left.

    What is cut off adds at most its 1-norm to an entry.
    """
    kernel = np.fft.ifft(side).real
    size, period = len(kernel), 1 << lens.levels
    error = spectrum_error(side)
    above = np.flatnonzero(np.abs(kernel) > error)
    reach = int(np.minimum(above, size - above).max()) if len(above) else 0
    needed = 2 * reach + 2 * support(lens.name, lens.levels) + 1
    shorter = period * math.ceil(needed / period)
    if shorter < size:
        error += float(np.abs(kernel[reach + 1 : size - reach]).sum())
        half = shorter // 2
        kernel = np.concatenate([kernel[: shorter - half], kernel[size - half :]])
    elif size > LARGEST_DENSE:
        return None
    return _axis(_circulant(kernel), lens, period, error, unfolded=size)


def _circulant(kernel: F64) -> F64:
    at = np.arange(len(kernel))
    matrix: F64 = kernel[(at[:, None] - at[None, :]) % len(kernel)]
    return matrix


def _axis(
    factor: F64, lens: Wavelet, period: int | None, error: float, unfolded: int | None = None
) -> _Axis:
    """Return the table of a factor; of a circulant only the rows of one period are different."""
    side = len(factor)
    every = atoms(lens.name, lens.levels, side)
    diagonal: dict[Band, F64] = {}
    sums: dict[tuple[Band, Band], F64] = {}
    for own, rows in every.items():
        kept = rows if period is None else rows[: max(1, period >> own[0])]
        image = kept @ factor
        diagonal[own] = (image * kept).sum(1)
        for its, columns in every.items():
            sums[own, its] = np.abs(image @ columns.T).sum(1)
    norm = float(np.abs(factor).sum(1).max())
    entry = 4 * of_sum(side) * norm + error
    # A matrix with entries of at most `error` on a row, in an orthonormal basis: the row's
    # 2-norm stays, and its 1-norm grows at most by the root of its length.
    spread = math.sqrt(side if unfolded is None else unfolded)
    return _Axis(diagonal, sums, entry, entry * spread)
