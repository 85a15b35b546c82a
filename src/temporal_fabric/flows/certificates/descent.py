"""Sufficient decrease, scheme by scheme, in difference form.

Every function returns a violation: how far the inequality of its scheme is missed, in units of
the rounding that it may be missed by. At most 1 means that it holds. The changes of f and g come
summed entry by entry, never as a difference of two energies: at the end of a run those agree in
all digits, and correct float32 steps would seem to rise every second time. g always counts.

The arguments are scalars, of numpy or traced by JAX, so that a step checks itself inside the
compiled loop. d = z+ - z is the step, E(z + d) - E(z) is ``change``, and ``size`` is the sum of
the moduli of what was added up to it. Where z is rounded after the step, as by a retraction, the
caller adds |grad f| |z| to ``size``, or leaves out steps of the length of that rounding. A step too
long for any promised decrease still must not rise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp

from temporal_fabric.flows.certificates.record import Finding, Kind
from temporal_fabric.flows.precision import unit_roundoff

if TYPE_CHECKING:
    from jax import Array

__all__ = [
    "beta_k",
    "curvature_ratio",
    "descent",
    "metric_residual",
    "nonexpansive",
    "potential",
    "preconditioned",
    "proximal",
    "riemannian",
    "riemannian_proximal",
    "shadow",
]

TOLERANCE = 64
"""Units of roundoff that a sum of changes may be wrong by, relative to its summands."""

SMALLEST_STEP = 1e3
"""Units of roundoff, relative to |z|, below which a step says nothing about curvature."""


def proximal(  # noqa: D417 - change and size are the module's
    change: Array, size: Array, square: Array, alpha: Array, beta: Array, *, convex: bool = True
) -> Array:
    """Check E(z+) <= E(z) - (1/alpha - beta/2) |d|^2.

    Beck (2017), Lemma 10.4, for convex g; f need not be. With g not convex the first term is
    1/(2 alpha) (Attouch, Bolte, Svaiter, Math. Program. 137, 2013). Without g this is the gradient
    step's own inequality.

    Args:
        square: |d|^2.
        alpha: The step.
        beta: beta_k of this very step, or beta_up.
        convex: Whether g is convex.
    """
    share = jnp.maximum((1.0 if convex else 0.5) / alpha - 0.5 * beta, 0)
    return _violation(change + share * square, size + share * square)


def potential(  # noqa: D417
    change: Array, size: Array, square: Array, *, before: Array, alpha: Array, momentum: Array
) -> Array:
    """Check V+ <= V - (1 - m^2)/(2 alpha) |z - z_before|^2, V = E + |z - z_before|^2/(2 alpha).

    Holds for alpha <= 1/beta_up and m in [0, 1], where E alone rises. Chambolle and Dossal, J.
    Optim. Theory Appl. 166 (2015); Wen, Chen, Pong (2017) for weakly convex f.

    Args:
        square: |d|^2.
        before: |z - z_before|^2.
        alpha: The step.
        momentum: m of this step.
    """
    kept = momentum**2 * before
    return _violation(change + (square - kept) / (2 * alpha), size + (square + kept) / (2 * alpha))


def preconditioned(change: Array, size: Array, product: Array, theta: Array) -> Array:  # noqa: D417
    """Check E(z+) <= E(z) - (1 - theta/2) d'P d, with the prox in the metric P.

    Chouzenoux, Pesquet, Repetti, J. Optim. Theory Appl. 162 (2014).

    Args:
        product: d'P d.
        theta: A bound of the eigenvalues of P^-1 L, below 2.
    """
    share = jnp.maximum(1 - 0.5 * theta, 0)
    return _violation(change + share * product, size + share * product)


def riemannian(change: Array, size: Array, square: Array, alpha: Array, smooth: Array) -> Array:  # noqa: D417
    """Check E(z+) <= E(z) - alpha (1 - alpha L_R/2) |grad_R f|^2.

    Boumal, Absil, Cartis (2019), Theorem 2.8.

    Args:
        square: |grad_R f|^2 at z.
        alpha: The step.
        smooth: L_R, the Lipschitz constant along the retraction.
    """
    share = jnp.maximum(alpha * (1 - 0.5 * alpha * smooth), 0)
    return _violation(change + share * square, size + share * square)


def riemannian_proximal(  # noqa: D417
    change: Array, size: Array, square: Array, length: Array, step: Array
) -> Array:
    """Check E(R(s v)) <= E(z) - s |v|^2 / (2 t).

    Chen, Ma, So, Zhang, SIAM J. Optim. 30 (2020), Theorem 5.5 (ManPG).

    Args:
        square: |v|^2 of the direction, a prox in the tangent space.
        length: s, found by halving.
        step: t of that prox.
    """
    share = length / (2 * step)
    return _violation(change + share * square, size + share * square)


def shadow(
    before: Array, after: Array, friction: Array, momentum_before: Array, momentum_after: Array
) -> Array:
    """Check Ht+ <= Ht - (1/2)(1 - e^{-c dt}) (|p_before|^2 + |p_after|^2) for damped leapfrog.

    Ht = |p|^2/2 + q'(L - dt^2 L^2/4) q/2 is conserved exactly by kick, drift, kick on a quadratic
    f (Hairer, Lubich, Wanner, 2006, section I.5); the plain energy is not.

    Args:
        before: Ht before the step.
        after: Ht after it.
        friction: 1 - e^{-c dt}.
        momentum_before: |p|^2 before the first friction half step.
        momentum_after: |p|^2 after the kicks.
    """
    lost = 0.5 * friction * (momentum_before + momentum_after)
    return _violation(after - before + lost, jnp.abs(after) + jnp.abs(before) + lost)


def metric_residual(primal: Array, dual: Array, mixed: Array, tau: Array, sigma: Array) -> Array:
    """Return |dx|^2/tau + |dp|^2/sigma - 2 <dp, K dx>: primal-dual steps never make it grow.

    Condat (2013); the energy of such a step is not monotone.

    Args:
        primal: |dx|^2.
        dual: |dp|^2.
        mixed: <dp, K dx>.
        tau: Primal step.
        sigma: Dual step.
    """
    return primal / tau + dual / sigma - 2 * mixed


def nonexpansive(after: Array, before: Array, scale: Array) -> Array:
    """Check that a squared step, in the metric of its scheme, has not grown.

    Combettes and Yamada, J. Math. Anal. Appl. 425 (2015), for convex f and g.

    Args:
        after: Squared length of this step.
        before: Squared length of the one before.
        scale: |z|^2 in the same metric: rounding of z enters the differences.
    """
    u = unit_roundoff(str(jnp.asarray(after).dtype))
    noise = 2 * TOLERANCE * u * (jnp.sqrt(before * scale) + u * scale)
    return (after - before) / (noise + TOLERANCE * u * before + _tiny(after))


def curvature_ratio(
    bend: Array, square: Array, norm: Array, beta: Array, *, relative: float = TOLERANCE
) -> Array:
    """Return beta_k / beta_up, 0 for a step too small to tell.

    beta_k = 2 (f(z + d) - f(z) - <grad f(z), d>) / |d|^2, which is |A d|^2/|d|^2 + mu for a
    quadratic f. At most 1 on every step makes each of them rigorous, even where beta_up is only
    probable.

    Args:
        bend: |A d|^2 + mu |d|^2, from A applied to d itself.
        square: |d|^2.
        norm: |z|.
        beta: beta_up.
        relative: Units of roundoff that are forgiven.
    """
    u = unit_roundoff(str(jnp.asarray(square).dtype))
    told = square > (SMALLEST_STEP * u * norm) ** 2
    ratio = bend / (jnp.where(told, square, 1) * beta * (1 + relative * u))
    return jnp.where(told, ratio, 0)


def descent(worst: float, iteration: int, scheme: str, *, name: str = "descent") -> Finding:
    """Return the finding of a chunk of steps.

    Args:
        worst: Largest violation; NaN where one was not a number.
        iteration: Of the worst step.
        scheme: Whose inequality it is.
        name: ``shadow_energy`` for leapfrog.
    """
    return Finding(
        name=name,
        value=worst,
        kind=Kind.RIGOROUS,
        method=f"every step, {scheme}",
        found=f"the worst step is {iteration}, at {worst:.3g} of the rounding allowed",
        meaning="A step did not decrease the energy as its theorem says",
        remedy="Halve alpha and redo the step; if it persists, a gradient or a prox is wrong",
    )


def beta_k(worst: float, iteration: int) -> Finding:
    """Return the finding of the curvature that the steps of a chunk have met."""
    return Finding(
        name="beta_k",
        value=worst,
        kind=Kind.RIGOROUS,
        method="curvature along every step",
        found=f"step {iteration} met {worst:.6g} times beta_up",
        meaning="beta_up is no upper bound",
        remedy="Halve alpha, redo the step, and certify beta_up again with more Lanczos steps",
    )


def _violation(excess: Array, size: Array) -> Array:
    u = unit_roundoff(str(jnp.asarray(excess).dtype))
    return excess / (TOLERANCE * u * size + _tiny(excess))


def _tiny(like: Array) -> Array:
    return jnp.asarray(jnp.finfo(like.dtype).tiny, like.dtype)
