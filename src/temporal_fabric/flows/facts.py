"""What a linear operator knows exactly about itself, and how that survives sums and products.

Everything is float64 on the host. A fact that is not None is true of the operator as it runs,
up to rounding; a bound has the rounding of its own computation added. What no rule gives is
None, and a certificate then has to find another way, or say that it has none.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["LARGEST_DENSE", "NOTHING", "AdjointKind", "Facts", "composed", "scaled", "summed"]

AdjointKind = Literal["derived", "exact", "user"]
"""Where an adjoint comes from: `jax.linear_transpose`, a formula here, or the user's own code."""

LARGEST_DENSE = 4096
"""Longest side of a matrix that is written out only for a certificate."""

_U = float(np.finfo(np.float64).eps) / 2


@dataclass(frozen=True)
class Facts:
    """What is exactly known about an operator A."""

    norm: float | None = None
    """A proved upper bound of the spectral norm ||A||, or None."""

    method: str = ""
    """How ``norm`` was proved, in words for a certificate."""

    adjoint: AdjointKind = "exact"
    """Whether the adjoint can be trusted; "user" asks for an adjoint test."""

    fourier: NDArray[np.complex128] | None = None
    """Symbol h^ on the full DFT grid of ``in_shape``: A = F^-1 diag(h^) F, so A is circular."""

    gram_fourier: NDArray[np.float64] | None = None
    """Symbol of A'A on the full DFT grid of ``in_shape``; known also for a periodic gradient."""

    diagonal: NDArray[np.float64] | None = None
    """A = diag(d), with d in ``in_shape``."""

    factors: tuple[NDArray[np.float64], ...] | None = None
    """One matrix for each axis: A is their Kronecker product, acting along the axes."""

    matrix: NDArray[np.float64] | None = None
    """The matrix of A on raveled arrays, where it is stored anyhow."""

    shift: tuple[int, ...] | None = None
    """A commutes with cyclic shifts by these many samples along each axis (1 = circular)."""

    reach: tuple[int, ...] | None = None
    """Along each axis, |i - j| above which A_ij = 0 (cyclic distance where ``shift`` is known)."""

    symmetric: bool = False
    """A = A', known by construction."""

    isometry: float | None = None
    """A'A = c I with this c, by construction."""

    def bounds(self, norm: float, method: str) -> Facts:
        """Return the facts with a norm bound, rounded outwards."""
        return replace(self, norm=norm * (1 + 64 * _U), method=method)


NOTHING = Facts()


def scaled(weight: float, facts: Facts) -> Facts:
    """Return the facts of weight * A."""

    def times(value: Any, factor: float) -> Any:
        return None if value is None else value * factor

    factors = facts.factors
    if factors is not None:
        factors = (factors[0] * weight, *factors[1:])
    return replace(
        facts,
        norm=times(facts.norm, abs(weight)),
        method=f"{abs(weight):.4g} times ({facts.method})" if facts.method else "",
        fourier=times(facts.fourier, weight),
        gram_fourier=times(facts.gram_fourier, weight**2),
        diagonal=times(facts.diagonal, weight),
        factors=factors,
        matrix=times(facts.matrix, weight),
        isometry=times(facts.isometry, weight**2),
    )


def composed(outer: Facts, inner: Facts) -> Facts:
    """Return the facts of the product A B; the norms multiply unless a symbol says better."""
    fourier = None
    if outer.fourier is not None and inner.fourier is not None:
        fourier = outer.fourier * inner.fourier
    gram = None
    if outer.gram_fourier is not None and inner.fourier is not None:
        gram = outer.gram_fourier * np.abs(inner.fourier) ** 2
    elif outer.isometry is not None and inner.gram_fourier is not None:
        gram = outer.isometry * inner.gram_fourier
    norm, method = _product_norm(outer, inner, gram)
    product = Facts(
        norm=norm,
        method=method,
        adjoint=_worst([outer.adjoint, inner.adjoint]),
        fourier=fourier,
        gram_fourier=gram,
        diagonal=_both(outer.diagonal, inner.diagonal, np.multiply),
        factors=_factor_product(outer.factors, inner.factors),
        matrix=_both(outer.matrix, inner.matrix, np.matmul),
        shift=_lcm(outer.shift, inner.shift),
        reach=_add(outer.reach, inner.reach),
        isometry=_both(outer.isometry, inner.isometry, operator.mul),
    )
    # Two circular symmetric or two diagonal operators commute; a general product does not.
    commute = fourier is not None or product.diagonal is not None
    return replace(product, symmetric=commute and outer.symmetric and inner.symmetric)


def summed(parts: Sequence[Facts]) -> Facts:
    """Return the facts of a sum of operators; the norms add unless a symbol says better."""
    first = parts[0]
    if len(parts) == 1:
        return first
    fourier = _total([part.fourier for part in parts])
    diagonal = _total([part.diagonal for part in parts])
    gram = None if fourier is None else np.abs(fourier) ** 2
    norm = _total([part.norm for part in parts])
    method = "sum of bounds" if norm is not None else ""
    if gram is not None:
        norm, method = math.sqrt(float(gram.max())), "largest modulus of the Fourier symbol"
    elif diagonal is not None:
        norm, method = float(np.abs(diagonal).max()), "largest entry of the diagonal"
    shift, reach = first.shift, first.reach
    for part in parts[1:]:
        shift = _lcm(shift, part.shift)
        reach = _widest(reach, part.reach)
    facts = Facts(
        norm=norm,
        method=method,
        adjoint=_worst([part.adjoint for part in parts]),
        fourier=fourier,
        gram_fourier=gram,
        diagonal=diagonal,
        matrix=_total([part.matrix for part in parts]),
        shift=shift,
        reach=reach,
        symmetric=all(part.symmetric for part in parts),
    )
    return facts if norm is None else facts.bounds(norm, method)


def _product_norm(outer: Facts, inner: Facts, gram: Any) -> tuple[float | None, str]:
    if gram is not None:
        return math.sqrt(float(gram.max())) * (1 + 64 * _U), "largest value of the Fourier symbol"
    if outer.norm is None or inner.norm is None:
        return None, ""
    return outer.norm * inner.norm * (1 + 64 * _U), "product of bounds"


def _factor_product(
    outer: tuple[NDArray[np.float64], ...] | None, inner: tuple[NDArray[np.float64], ...] | None
) -> tuple[NDArray[np.float64], ...] | None:
    if outer is None or inner is None or len(outer) != len(inner):
        return None
    return tuple(a @ b for a, b in zip(outer, inner, strict=True))


def _worst(kinds: list[AdjointKind]) -> AdjointKind:
    order: tuple[AdjointKind, ...] = ("user", "derived", "exact")
    return min(kinds, key=order.index)


def _both(one: Any, other: Any, rule: Any) -> Any:
    return None if one is None or other is None else rule(one, other)


def _total(values: Sequence[Any]) -> Any:
    return None if any(value is None for value in values) else sum(values[1:], values[0])


def _lcm(one: tuple[int, ...] | None, other: tuple[int, ...] | None) -> tuple[int, ...] | None:
    if one is None or other is None or len(one) != len(other):
        return None
    return tuple(map(math.lcm, one, other))


def _widest(one: tuple[int, ...] | None, other: tuple[int, ...] | None) -> tuple[int, ...] | None:
    return None if one is None or other is None else tuple(map(max, one, other))


def _add(one: tuple[int, ...] | None, other: tuple[int, ...] | None) -> tuple[int, ...] | None:
    if one is None or other is None or len(one) != len(other):
        return None
    return tuple(a + b for a, b in zip(one, other, strict=True))
