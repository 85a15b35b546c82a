"""Extreme eigenvalues by matrix products alone: what they say, and with which probability.

The largest Ritz value is never above the largest eigenvalue, and the smallest never below the
smallest: of themselves they are estimates, on the wrong side. With a start drawn uniformly from
the sphere the distance has a bound that fails with a known probability.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from temporal_fabric.flows.precision import CERT_DTYPE, host

if TYPE_CHECKING:
    from collections.abc import Callable

    from jax import Array

    from temporal_fabric.flows.operators import Shape
    from temporal_fabric.flows.precision import F64

__all__ = ["Ritz", "gaussian", "lanczos", "power_norm", "ritz_width"]

_BREAKDOWN = 1e-13
"""Relative size of a new direction below which the Krylov space is complete."""


@dataclass(frozen=True)
class Ritz:
    """Ritz values of a symmetric operator."""

    values: F64
    """In rising order."""

    steps: int
    """Dimension of the Krylov space that was asked for."""

    size: int
    """Number of unknowns."""

    complete: bool
    """The Krylov space became invariant: with a random start, both ends are exact."""

    random: bool
    """The start was uniform on the sphere; of another start nothing follows."""

    @property
    def least(self) -> float:
        """The smallest Ritz value: an upper bound of the least eigenvalue."""
        return float(self.values[0])

    @property
    def largest(self) -> float:
        """The largest Ritz value: a lower bound of the largest eigenvalue."""
        return float(self.values[-1])

    def reach(self, delta: float, *, semidefinite: bool = False) -> float | None:
        """Return how far beyond both Ritz values the spectrum may reach, but for ``delta``.

        Each end is missed with probability delta/2 by more than eps times the spread of the
        spectrum, which is the Ritz values' spread over 1 - 2 eps at most. None where the number
        of steps is too small for any bound.

        Args:
            delta: Probability that the spectrum reaches further at one end or the other.
            semidefinite: No eigenvalue is negative: the upper end alone is asked for, and the
                spread is at most the largest eigenvalue.
        """
        if not self.random:
            return None
        if self.complete:
            return 0.0
        if semidefinite:
            eps = ritz_width(self.size, self.steps, delta)
            return self.largest * eps / (1 - eps) if eps < 1 else None
        eps = ritz_width(self.size, self.steps, delta / 2)
        if eps >= 0.5:  # noqa: PLR2004 - where 1 - 2 eps ends
            return None
        return eps * (self.largest - self.least) / (1 - 2 * eps)


def ritz_width(size: int, steps: int, delta: float) -> float:
    """Return eps: the largest Ritz value is below lambda_1 - eps (lambda_1 - lambda_n) at most
    with probability delta.

    Kuczynski and Wozniakowski, SIAM J. Matrix Anal. Appl. 13 (1992), Theorem 4.1: the
    probability is at most 1.648 sqrt(n) exp(-sqrt(eps) (2k - 1)), for a positive definite matrix
    and hence, by a shift, for a symmetric one. The theorem is of exact arithmetic, which full
    reorthogonalisation stands in for.
    """  # noqa: D205 - the statement is one sentence
    logarithm = max(0.0, math.log(1.648 * math.sqrt(size) / delta))
    return (logarithm / (2 * steps - 1)) ** 2


def gaussian(seed: int, shape: Shape) -> Array:
    """Return standard normal float64 numbers from a seed."""
    return jax.random.normal(jax.random.key(seed), shape, jnp.dtype(CERT_DTYPE))


def lanczos(
    apply: Callable[[Array], Array],
    shape: Shape,
    *,
    steps: int = 50,
    seed: int = 0,
    start: Array | None = None,
) -> Ritz:
    """Return the Ritz values of a symmetric operator.

    Args:
        apply: The operator on float64 arrays; a `jax.tree_util.Partial` of one function compiles
            once for all its arguments.
        shape: Of what it takes.
        steps: Dimension of the Krylov space.
        seed: Of the start, uniform on the sphere.
        start: Another start; no probability goes with the result then.
    """
    size = math.prod(shape)
    k = min(steps, size)
    first = gaussian(seed, shape) if start is None else start
    alphas, betas = map(host, _tridiagonal(_partial(apply), first, k))
    scale = max(float(np.abs(alphas).max()), float(betas.max()), np.finfo(np.float64).tiny)
    ended = np.flatnonzero(betas <= _BREAKDOWN * scale)
    length = int(ended[0]) + 1 if len(ended) else k
    complete = length < k or k == size
    off = betas[: length - 1]
    matrix = np.diag(alphas[:length]) + np.diag(off, 1) + np.diag(off, -1)
    return Ritz(host(np.linalg.eigvalsh(matrix)), steps, size, complete, start is None)


@partial(jax.jit, static_argnums=2)
def _tridiagonal(apply: Callable[[Array], Array], start: Array, steps: int) -> tuple[Array, Array]:
    """Return the diagonal and the off-diagonal, by two full reorthogonalisations a step."""
    flat = start.reshape(-1)
    basis = jnp.zeros((steps, flat.shape[0]), flat.dtype)

    def advance(carry: Any, index: Array) -> Any:
        basis, vector = carry
        basis = basis.at[index].set(vector)
        image = apply(vector.reshape(start.shape)).reshape(-1)
        alpha = vector @ image
        for _ in range(2):
            image = image - basis.T @ (basis @ image)
        beta = jnp.linalg.norm(image)
        after = jnp.where(beta > 0, image / jnp.where(beta > 0, beta, 1), 0)
        return (basis, after), (alpha, beta)

    unit = flat / jnp.linalg.norm(flat)
    _, found = jax.lax.scan(advance, (basis, unit), jnp.arange(steps))
    alphas, betas = found
    return alphas, betas


def power_norm(
    apply: Callable[[Array], Array],
    shape: Shape,
    *,
    steps: int = 10,
    seed: int = 0,
    delta: float = 1e-6,
) -> tuple[float, float]:
    """Return an estimate of the norm of a symmetric operator, and a bound wrong with ``delta``.

    The start b is uniform on the sphere. |D^k b| >= |D|^k |b_1| for the component b_1 along the
    dominant eigenvector, and |b_1| <= t with probability at most 0.8 sqrt(n) t, so
    |D| <= |D^k b|^(1/k) (0.8 sqrt(n) / delta)^(1/k) but for delta (Dixon, SIAM J. Numer. Anal.
    20, 1983, Theorem 1, with A = D^2).
    """
    vector, _ = _unit(gaussian(seed, shape))
    sizes: list[Array] = []
    # A loop of the host: `apply` is a program or two that other tests have compiled already, and
    # to compile a loop around it takes far longer than a few steps of any loop.
    for _ in range(steps):
        vector, size = _unit(apply(vector))
        sizes.append(size)
    with np.errstate(divide="ignore"):
        grown = float(np.sum(np.log(np.array(sizes))))
    size = math.prod(shape)
    widening = (max(1.0, 0.8 * math.sqrt(size) / delta)) ** (1 / steps)
    estimate = 0.0 if grown == -math.inf else math.exp(grown / steps)
    return estimate, estimate * widening


@jax.jit
def _unit(vector: Array) -> tuple[Array, Array]:
    """Return a vector at length one, or zero, and its length."""
    size = jnp.sqrt(jnp.sum(vector**2))
    return jnp.where(size > 0, vector / jnp.where(size > 0, size, 1), 0), size


def _partial(apply: Callable[[Array], Array]) -> Callable[[Array], Array]:
    return apply if isinstance(apply, Partial) else Partial(apply)
