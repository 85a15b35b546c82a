"""Preconditioned steps: theta = lambda_max(P^-1/2 L P^-1/2), and the prox in the metric P.

The prox after a preconditioned gradient has to be argmin g(v) + |v - u|_P^2 / 2. With the plain
prox instead, the iteration converges to the minimiser of nothing in particular.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp
from jax.tree_util import Partial

from temporal_fabric.flows.certificates.krylov import gaussian, lanczos, ritz_width
from temporal_fabric.flows.certificates.record import Finding, Kind
from temporal_fabric.flows.certificates.rounding import U
from temporal_fabric.flows.precision import CERT_DTYPE, cast, host

if TYPE_CHECKING:
    from collections.abc import Callable

    from jax import Array

    from temporal_fabric.flows.certificates.hessian import Hessian
    from temporal_fabric.flows.energy import NonsmoothTerm
    from temporal_fabric.flows.operators import Operator

__all__ = ["preconditioner", "prox_metric"]

_ENOUGH = 1.9
"""Below this the cheap bound does, and no Lanczos is run."""

_TOLERANCE = 256
"""Units of roundoff that two ways to the same prox may differ by."""


def preconditioner(
    block: Hessian,
    lens: Operator,
    metric: Array,
    beta: Finding,
    *,
    seed: int,
    steps: int = 60,
    delta: float = 1e-6,
) -> Finding:
    """Return theta for P = W' diag(metric) W: below 2 for descent.

    Chouzenoux, Pesquet, Repetti, J. Optim. Theory Appl. 162 (2014). Either beta_up / min p, or
    Lanczos on P^-1/2 L P^-1/2 with the bound of Kuczynski and Wozniakowski for a positive
    semidefinite matrix.

    Args:
        block: Of the slot.
        lens: W, orthonormal.
        metric: p > 0, one entry for each coefficient, the step taken up in it.
        beta: beta_up.
        seed: Of the start.
        steps: Of Lanczos.
        delta: Of its bound.
    """
    p = jnp.asarray(metric, CERT_DTYPE)
    least = float(jnp.min(p))
    simple = None if beta.value is None or least <= 0 else beta.value / least * (1 + 4 * U)
    value, kind, chance, method = simple, beta.kind, beta.delta, "beta_up / min p"
    if least > 0 and block.semidefinite and (simple is None or simple > _ENOUGH):
        wide: Operator = cast(lens, CERT_DTYPE)
        shape = tuple(p.shape)
        ritz = lanczos(Partial(_scaled, block.apply, wide, p), shape, steps=steps, seed=seed)
        eps = 0.0 if ritz.complete else ritz_width(ritz.size, steps, delta)
        if eps < 1:
            value, kind, chance = ritz.largest / (1 - eps) * (1 + 1e-12), Kind.PROBABLE, delta
            method = f"Lanczos, {steps} steps, Kuczynski-Wozniakowski"
    shown = "not known" if value is None else f"{value:.4g}"
    return Finding(
        name="preconditioner",
        value=value,
        kind=kind,
        delta=chance,
        method=method,
        found=f"theta = lambda_max(P^-1/2 L P^-1/2) is at most {shown}",
        meaning="The preconditioned step is too long somewhere",
        remedy="Scale the preconditioner up, or take more Lanczos steps for a sharper bound",
    )


def prox_metric(
    term: NonsmoothTerm, metric: Array, prox: Callable[[Array], Array], *, seed: int
) -> Finding:
    """Return by how much a prox of coefficients misses the one in the metric P.

    Only a separable penalty has a closed prox in a diagonal metric: the step of each entry is
    weight / p_i. Every other penalty needs a constant metric.

    Args:
        term: The penalty with its weight.
        metric: p, as for `preconditioner`.
        prox: What the scheme applies to the coefficients.
        seed: Of the points at which both are compared.
    """
    p = jnp.asarray(metric, CERT_DTYPE)
    wide: NonsmoothTerm = cast(term, CERT_DTYPE)
    constant = bool(host(p).min() == host(p).max())
    if not (constant or wide.penalty.traits().separable):
        return Finding(
            name="prox_metric",
            value=None,
            kind=Kind.RIGOROUS,
            method="not separable",
            found=f"{term.name} has no closed prox in a metric that varies",
            meaning="The plain prox would end at a wrong point",
            remedy="Use a constant preconditioner, or plain steps",
        )
    step = wide.weight / (p if not constant else p.reshape(-1)[0])
    worst = 0.0
    # Points below, around and above the thresholds: a plain prox differs at one of them.
    for at, size in enumerate((0.3, 1.0, 3.0, 30.0)):
        u = size * gaussian(seed + at, tuple(p.shape)) * jnp.maximum(step, jnp.max(step) * 1e-3)
        apart = jnp.max(jnp.abs(prox(u) - wide.penalty.prox(u, step)))
        worst = max(worst, float(apart / jnp.max(jnp.abs(u))))
    return Finding(
        name="prox_metric",
        value=worst if worst > _TOLERANCE * U else 0.0,
        kind=Kind.RIGOROUS,
        method="by construction, compared at random points",
        found=f"the prox differs from the one in the metric by {worst:.2g}",
        meaning="The flow would end at the minimiser of another energy",
        remedy="Apply the prox with a step of weight / p_i for each entry",
    )


def _scaled(apply: Callable[[Array], Array], lens: Operator, metric: Array, u: Array) -> Array:
    root = jnp.sqrt(metric)
    return lens.matvec(apply(lens.adjoint(u / root))) / root
