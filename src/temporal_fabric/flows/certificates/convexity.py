"""gamma_low: the largest proved lower bound of the least eigenvalue of L.

Lanczos overstates the least eigenvalue: of blurs and log-uniform spectra twenty steps miss all
that are singular to 1e-6. So a Ritz value is a finding of its own, `gamma_est`, an estimate: below
the bound it closes the gate, and rightly; above, it says nothing.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from temporal_fabric.flows.certificates.curvature import Bound, factor_ends, formed, spectrum_error
from temporal_fabric.flows.certificates.krylov import lanczos
from temporal_fabric.flows.certificates.record import Finding, Kind, Relation
from temporal_fabric.flows.certificates.rounding import U, of_fft, of_sum
from temporal_fabric.flows.facts import LARGEST_DENSE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from temporal_fabric.flows.certificates.hessian import Hessian
    from temporal_fabric.flows.certificates.rows import Rows
    from temporal_fabric.flows.facts import Facts
    from temporal_fabric.flows.precision import F64

__all__ = ["by_inertia", "gamma_est", "gamma_low"]

_MEANING = "The minimiser may be not unique, and no distance to it can be claimed"
_REMEDY = (
    "Add a Tikhonov term of at least the bound, or choose `convex`, which claims a gap instead"
)


def gamma_low(
    blocks: Sequence[Hessian],
    *,
    rows: Mapping[str, Rows | None] | None = None,
    seed: int = 0,
    steps: int = 50,
    delta: float = 1e-6,
) -> Finding:
    """Return the largest lower bound that is known of the least eigenvalue of L.

    Args:
        blocks: The blocks of L; the smallest of their bounds is returned.
        rows: Row sums by block, for the signed Gershgorin bound, where they were computed.
        seed: Of the start, where no structure gives a bound.
        steps: Of Lanczos, there.
        delta: Probability of error, there.
    """
    share, known_rows = delta / len(blocks), rows or {}
    found = [_of_block(one, known_rows.get(one.name), seed, steps, share) for one in blocks]
    known = [bound for bound in found if bound is not None]
    if len(known) < len(found):
        return Finding(
            name="gamma_low",
            value=None,
            kind=Kind.PROBABLE,
            relation=Relation.AT_LEAST,
            method="no structure",
            found="no lower bound of the least eigenvalue is known",
            meaning="f may be not even convex",
            remedy="Give the operator a structure, or choose `nonconvex`",
        )
    least = min(known, key=lambda bound: bound.value)
    probable = any(bound.kind is Kind.PROBABLE for bound in known)
    return Finding(
        name="gamma_low",
        value=least.value,
        kind=Kind.PROBABLE if probable else Kind.RIGOROUS,
        delta=sum(bound.delta for bound in known),
        error=least.error,
        relation=Relation.AT_LEAST,
        method=least.method,
        found=f"the least eigenvalue is proved to be at least {least.value:.4g}",
        meaning=_MEANING,
        remedy=_REMEDY,
    )


def gamma_est(blocks: Sequence[Hessian], *, seed: int = 0, steps: int = 20) -> Finding:
    """Return the smallest Ritz value: an upper bound of the least eigenvalue, up to rounding."""
    values: list[float] = []
    for block in blocks:
        ritz = lanczos(block.apply, block.shape, steps=steps, seed=seed)
        size = max(abs(ritz.least), abs(ritz.largest))
        values.append(ritz.least + 8 * of_fft(block.size) * size)
    return Finding(
        name="gamma_est",
        value=min(values),
        kind=Kind.ESTIMATE,
        relation=Relation.AT_LEAST,
        method=f"Lanczos, {steps} steps",
        found=f"the least eigenvalue is at most {min(values):.4g}",
        meaning=_MEANING,
        remedy=_REMEDY,
    )


def _of_block(
    block: Hessian, rows: Rows | None, seed: int, steps: int, delta: float
) -> Bound | None:
    proved = list(_from_facts(block.lower, block.summands))
    if block.semidefinite:
        proved.append(_by_construction(tested=block.tested))
    if rows is not None:
        proved.append(Bound(rows.gershgorin(), "signed Gershgorin"))
    if proved:
        best = max(proved, key=lambda bound: bound.value)
        value = best.value + block.mu
        value -= 2 * U * (abs(best.value) + abs(block.mu))
        method = best.method if best.value or not block.mu else f"mu; {best.method}"
        return replace(best, value=value if best.value or block.mu else 0.0, method=method)
    if block.exact is None:
        return None
    ritz = lanczos(block.apply, block.shape, steps=steps, seed=seed)
    reach = ritz.reach(delta)
    if reach is None:
        return None
    value = ritz.least - reach - 1e-12 * max(abs(ritz.least), abs(ritz.largest))
    method = f"Lanczos, {ritz.steps} steps, Kuczynski-Wozniakowski"
    return Bound(value, method, reach, Kind.PROBABLE, delta)


def _by_construction(*, tested: bool) -> Bound:
    if tested:
        method = "positive semidefinite by construction, the adjoint by its test"
        return Bound(0.0, method, kind=Kind.PROBABLE, delta=1e-6)
    return Bound(0.0, "positive semidefinite by construction")


def _from_facts(facts: Facts, summands: int) -> Iterator[Bound]:
    if facts.fourier is not None:
        spectrum = facts.fourier.real
        error = spectrum_error(spectrum)
        yield Bound(float(spectrum.min()) - error, "Fourier symbol", error)
    if facts.diagonal is not None:
        yield Bound(float(facts.diagonal.min()), "diagonal")
    if facts.factors is not None:
        yield _of_factors(facts.factors, summands)
    if facts.matrix is not None and facts.matrix.shape[0] <= LARGEST_DENSE:
        yield by_inertia(facts.matrix, formed(facts.matrix, summands))


def _of_factors(factors: tuple[F64, ...], summands: int) -> Bound:
    """Return the least product of one eigenvalue of each factor."""
    least, largest = 1.0, 1.0
    for factor in factors:
        ends = factor_ends(factor, summands)
        products = [one * other for one in (least, largest) for other in ends]
        least, largest = min(products), max(products)
    return Bound(least - 8 * U * abs(least), "separable, eigenvalues of the factors")


def by_inertia(matrix: F64, uncertain: float = 0.0) -> Bound:
    """Return an s such that matrix - s I is proved positive definite by a Cholesky factor.

    If the factorisation of B = A - s I - c I runs through, its factor is that of a matrix within
    gamma_{n+1} |R'||R| of B, whose norm is at most gamma_{n+1} tr(B) / (1 - gamma_{n+1}): that is
    c (Rump, BIT 46, 2006, Theorem 2.3; Higham, 2002, Theorem 10.3). Of several s, from the
    computed least eigenvalue downwards, the first that runs through is returned.

    Args:
        matrix: Symmetric.
        uncertain: Norm of the difference of ``matrix`` from the one that is meant.
    """
    size = matrix.shape[0]
    values = np.linalg.eigvalsh(matrix)
    scale = max(abs(float(values[0])), abs(float(values[-1])), np.finfo(np.float64).tiny)
    relative = of_sum(size + 3)
    margin = 4 * size * U * scale
    for _ in range(40):
        shift = float(values[0]) - margin
        trace = float(np.abs(np.diag(matrix) - shift).sum())
        slack = 2 * relative / (1 - relative) * trace + 8 * U * (scale + abs(shift))
        try:
            np.linalg.cholesky(matrix - (shift + slack) * np.eye(size))
        except np.linalg.LinAlgError:
            margin = max(4 * margin, 2 * slack)
            continue
        return Bound(shift - uncertain, "Cholesky inertia", margin + uncertain)
    # Not reached for finite matrices: a shift of the size of the norm always runs through.
    return Bound(-math.inf, "Cholesky inertia failed")
