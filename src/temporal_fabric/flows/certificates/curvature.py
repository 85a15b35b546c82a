"""beta_up: a proved upper bound of the Lipschitz constant of grad f.

Steps longer than 2/beta diverge, so beta must never come out too small. Power and Lanczos values
always do; they serve only inside a bound that fails with a stated probability.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from temporal_fabric.flows.certificates.krylov import lanczos
from temporal_fabric.flows.certificates.record import Finding, Kind
from temporal_fabric.flows.certificates.rounding import U, of_fft, of_sum

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from temporal_fabric.flows.certificates.hessian import Hessian
    from temporal_fabric.flows.facts import Facts
    from temporal_fabric.flows.precision import F64

__all__ = ["Bound", "beta_up", "factor_ends", "formed", "spectrum_error"]

_NAME = "beta_up"


@dataclass(frozen=True)
class Bound:
    """A bound of an eigenvalue, and how it came about."""

    value: float
    method: str
    error: float = 0.0
    kind: Kind = Kind.RIGOROUS
    delta: float = 0.0


def beta_up(
    blocks: Sequence[Hessian], *, seed: int = 0, steps: int = 50, delta: float = 1e-6
) -> Finding:
    """Return the smallest upper bound that is known of max |eigenvalue| of L.

    Args:
        blocks: The blocks of L; the largest of their bounds is returned.
        seed: Of the start, where no structure gives a bound.
        steps: Of Lanczos, there.
        delta: Probability of error, there.
    """
    found = [_of_block(block, seed, steps, delta / len(blocks)) for block in blocks]
    known = [bound for bound in found if bound is not None]
    if len(known) < len(found):
        return Finding(
            name=_NAME,
            value=None,
            kind=Kind.PROBABLE,
            method=f"Lanczos, {steps} steps",
            found="no upper bound of the curvature of f is known",
            meaning="Without one no step size is safe",
            remedy="Give the operator a structure, or allow more Lanczos steps",
        )
    largest = max(known, key=lambda bound: bound.value)
    probable = any(bound.kind is Kind.PROBABLE for bound in known)
    return Finding(
        name=_NAME,
        value=largest.value,
        kind=Kind.PROBABLE if probable else Kind.RIGOROUS,
        delta=sum(bound.delta for bound in known),
        error=largest.error,
        method=largest.method,
        found=f"the curvature of f is at most {largest.value:.4g}",
    )


def _of_block(block: Hessian, seed: int, steps: int, delta: float) -> Bound | None:
    proved = list(_from_facts(block.upper, block.summands))
    if proved:
        best = min(proved, key=lambda bound: bound.value)
        value = (best.value + abs(block.mu)) * (1 + 4 * U)
        return Bound(value, best.method, best.error)
    if block.exact is None:
        return None
    ritz = lanczos(block.apply, block.shape, steps=steps, seed=seed)
    reach = ritz.reach(delta, semidefinite=block.semidefinite)
    if reach is None:
        return None
    value = max(abs(ritz.least - reach), abs(ritz.largest + reach)) * (1 + 1e-12)
    method = f"Lanczos, {ritz.steps} steps, Kuczynski-Wozniakowski"
    return Bound(value, method, reach, Kind.PROBABLE, delta)


def _from_facts(facts: Facts, summands: int) -> Iterator[Bound]:
    if facts.fourier is not None:
        spectrum = facts.fourier.real
        error = spectrum_error(spectrum)
        yield Bound(float(np.abs(spectrum).max()) + error, "Fourier symbol", error)
    if facts.diagonal is not None:
        yield Bound(float(np.abs(facts.diagonal).max()), "diagonal")
    if facts.factors is not None:
        ends = [factor_ends(one, summands) for one in facts.factors]
        value = math.prod(max(-low, high) for low, high in ends)
        yield Bound(value * (1 + 8 * U), "separable, eigenvalues of the factors")
    if facts.matrix is not None:
        rows = float(np.abs(facts.matrix).sum(1).max())
        error = rows * of_sum(facts.matrix.shape[0]) + formed(facts.matrix, summands)
        yield Bound(rows + error, "largest row sum", error)
        low, high = factor_ends(facts.matrix, summands)
        yield Bound(max(-low, high), "eigenvalues of the matrix")
    if facts.norm is not None:
        yield Bound(facts.norm, facts.method)


def factor_ends(matrix: F64, summands: int) -> tuple[float, float]:
    """Return a lower and an upper bound of the eigenvalues of a small symmetric matrix.

    The computed ones are those of a matrix within a small multiple of n u |A| (LAPACK Users'
    Guide, section 4.7), and A itself was formed by sums.
    """
    values = np.linalg.eigvalsh(matrix)
    low, high = float(values[0]), float(values[-1])
    error = 10 * matrix.shape[0] * U * max(abs(low), abs(high)) + formed(matrix, summands)
    return low - error, high + error


def formed(matrix: F64, summands: int) -> float:
    """Return how far a computed A'A is from the true one: gamma_m |A|_F^2, which is its trace."""
    return of_sum(summands) * float(np.abs(np.diag(matrix)).sum()) if summands > 1 else 0.0


def spectrum_error(spectrum: F64) -> float:
    """Return how far each value of a symbol made by an FFT may be from the true one.

    The symbol of A'A is the square of a symbol whose kernel has at least the 1-norm that the
    autocorrelation has, so twice that error covers both.
    """
    kernel = np.fft.ifftn(spectrum)
    return 2 * of_fft(spectrum.size) * float(np.abs(kernel).sum())
