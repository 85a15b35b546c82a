"""L, the Hessian of f, as certificates see it: a product, and what is known of its structure.

Of each smooth term w phi(A x) with m <= phi'' <= M it is known that w m A'A <= L <= w M A'A. A
term w c |x|^2 / 2 adds mu = w c to every eigenvalue in every basis, so it is kept apart: it
spoils no Kronecker product. Slots that no term couples are blocks of their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from temporal_fabric.flows.energy import QuadraticForm, SmoothTerm
from temporal_fabric.flows.facts import LARGEST_DENSE, NOTHING, Facts, scaled, summed
from temporal_fabric.flows.precision import CERT_DTYPE, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jax import Array

    from temporal_fabric.flows.energy import Energy, Smooth, State
    from temporal_fabric.flows.operators import Shape

__all__ = ["Hessian", "gram", "hessians"]


@dataclass(frozen=True, kw_only=True)
class Hessian:
    """One block of L."""

    name: str
    """The slots of the block."""

    shape: Shape
    apply: Callable[[Array], Array]
    """x -> L x at the given state, mu included, in float64."""

    upper: Facts = NOTHING
    """Facts of a symmetric B with L <= B + mu I."""

    lower: Facts = NOTHING
    """Facts of a symmetric B with L >= B + mu I; the same object as ``upper`` where L is known."""

    mu: float = 0.0
    """Sum of the multiples of the identity."""

    semidefinite: bool = False
    """L - mu I is positive semidefinite by construction, with adjoints that are ones."""

    tested: bool = False
    """Some adjoint is the user's own: that it is one stands on the adjoint test."""

    summands: int = 1
    """Longest sum by which an entry of A'A was formed: its rounding is that of this many terms."""

    @property
    def size(self) -> int:
        """Number of unknowns."""
        return math.prod(self.shape)

    @property
    def exact(self) -> Facts | None:
        """Facts of L - mu I itself; None where only bounds of it are known."""
        return self.upper if self.upper is self.lower else None


def gram(facts: Facts, weight: float) -> Facts:
    """Return the facts of weight * A'A, weight >= 0."""
    whole = Facts(
        norm=None if facts.norm is None else facts.norm**2,
        method=facts.method,
        adjoint=facts.adjoint,
        diagonal=None if facts.diagonal is None else facts.diagonal**2,
        factors=None if facts.factors is None else tuple(one.T @ one for one in facts.factors),
        shift=facts.shift,
        reach=None if facts.reach is None else tuple(2 * one for one in facts.reach),
        symmetric=True,
    )
    if facts.gram_fourier is not None:
        whole = replace(whole, fourier=facts.gram_fourier.astype(np.complex128))
    if facts.matrix is not None and facts.matrix.shape[1] <= LARGEST_DENSE:
        whole = replace(whole, matrix=facts.matrix.T @ facts.matrix)
    return replace(scaled(weight, whole), method=facts.method)


def hessians(energy: Energy, state: State) -> tuple[Hessian, ...]:
    """Return the blocks of the Hessian of f at a state.

    Args:
        energy: In any dtype; it is cast to float64 as it is.
        state: Where the Hessian is taken; only its shapes matter for quadratic f.
    """
    wide: Energy = cast(energy, CERT_DTYPE)
    at: State = cast(state, CERT_DTYPE)
    coupled = any(len(term.variables) > 1 for term in wide.smooth)
    if coupled:
        return (_joint(wide, at),)
    return tuple(
        _block(slot, tuple(term for term in wide.smooth if term.variables == (slot,)), at)
        for slot in at
    )


def _block(slot: str, terms: tuple[Smooth, ...], state: State) -> Hessian:
    parts = [_bounds(term) for term in terms]
    rest = [part for part in parts if part.upper is not None]
    upper = _sum([part.upper for part in rest])
    exact = all(part.exact for part in rest)
    lower = upper if exact else _sum([part.lower for part in rest])
    return Hessian(
        name=slot,
        shape=tuple(state[slot].shape),
        apply=Partial(_apply, terms, {slot: state[slot]}),
        upper=upper,
        lower=lower,
        mu=sum(part.mu for part in parts),
        semidefinite=all(part.semidefinite for part in parts),
        tested=any(part.tested for part in parts),
        summands=max((part.summands for part in parts), default=1),
    )


@dataclass(frozen=True)
class _Part:
    """What one term adds: bounds of a matrix, or a multiple of the identity."""

    upper: Facts | None
    lower: Facts | None
    exact: bool = True
    mu: float = 0.0
    semidefinite: bool = True
    tested: bool = False
    summands: int = 1


def _bounds(term: Smooth) -> _Part:
    if isinstance(term, QuadraticForm):
        facts = scaled(float(term.weight), term.operator.facts())
        if not facts.symmetric:
            return _Part(NOTHING, NOTHING, exact=False, semidefinite=False)
        return _Part(facts, facts, semidefinite=False)
    if not isinstance(term, SmoothTerm):
        return _Part(NOTHING, NOTHING, exact=False, semidefinite=False)
    (operator,) = term.operators.values()
    facts, weight = operator.facts(), float(term.weight)
    least, most = term.loss.curvature_bounds()
    if facts.isometry is not None and least == most:
        return _Part(None, None, mu=weight * least * facts.isometry)
    upper = NOTHING if most is None else gram(facts, weight * most)
    sides = (*(facts.factors or ()), *(() if facts.matrix is None else (facts.matrix,)))
    return _Part(
        upper=upper,
        lower=upper if least == most else gram(facts, weight * least),
        exact=least == most,
        semidefinite=weight >= 0,
        tested=facts.adjoint == "user",
        summands=max((side.shape[0] for side in sides), default=1),
    )


def _sum(parts: Sequence[Facts | None]) -> Facts:
    known = [part for part in parts if part is not None]
    zero = Facts(norm=0.0, method="no such term", symmetric=True)
    return summed(known) if known else zero


def _joint(energy: Energy, state: State) -> Hessian:
    """Return one block of all slots: |[A B]|^2 <= |A|^2 + |B|^2 bounds it, and nothing else."""
    total: float | None = 0.0
    semidefinite, tested = True, False
    for term in energy.smooth:
        if not isinstance(term, SmoothTerm):
            total, semidefinite = None, False
            break
        facts = [operator.facts() for operator in term.operators.values()]
        norms = [one.norm for one in facts]
        _, most = term.loss.curvature_bounds()
        tested |= any(one.adjoint == "user" for one in facts)
        semidefinite &= float(term.weight) >= 0
        if total is None or most is None or None in norms:
            total = None
        else:
            total += float(term.weight) * most * sum(norm**2 for norm in norms if norm is not None)
    method = "sum over slots of squared bounds"
    upper = NOTHING if total is None else Facts().bounds(total, method)
    size = sum(math.prod(x.shape) for x in state.values())
    return Hessian(
        name=", ".join(state),
        shape=(size,),
        apply=Partial(_apply_joint, energy.smooth, state),
        upper=upper,
        semidefinite=semidefinite,
        tested=tested,
    )


def _apply(terms: tuple[Smooth, ...], state: State, x: Array) -> Array:
    total = jnp.zeros_like(x)
    for term in terms:
        (slot,) = term.variables
        total = total + term.hessian_apply(state, {slot: x})[slot]
    return total


def _apply_joint(terms: tuple[Smooth, ...], state: State, x: Array) -> Array:
    flat, unravel = jax.flatten_util.ravel_pytree(state)
    del flat
    direction = unravel(x)
    total = jax.tree.map(jnp.zeros_like, state)
    for term in terms:
        for slot, part in term.hessian_apply(state, direction).items():
            total[slot] = total[slot] + part
    return jax.flatten_util.ravel_pytree(total)[0]
