"""Conditions on step sizes: each scheme has its own, and each is checked against a proved beta.

Sources are named at each function. A bound below the theorem's, 1.9 for 2 and 3.6 for 4, leaves
room for rounding and keeps the descent a fixed share of the step.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from temporal_fabric.flows.certificates.record import Finding, Kind
from temporal_fabric.flows.certificates.rounding import U

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["manifold_step", "momentum", "primal_dual_step", "step", "symplectic_step"]

_MEANING = "No descent theorem covers so long a step"


def step(alpha: float, beta: Finding) -> Finding:
    """Return alpha * beta_up: below 2 for plain steps, at most 1 for accelerated ones.

    Beck, First-Order Methods in Optimization (2017), Lemma 10.4 and Theorem 10.34; Combettes and
    Wajs, Multiscale Model. Simul. 4 (2005).
    """
    return _scaled("step", "alpha * beta_up", beta, ("alpha", alpha), lambda b: alpha * b)


def symplectic_step(dt: float, beta: Finding) -> Finding:
    """Return dt^2 * beta_up: leapfrog is stable below 4.

    Hairer, Lubich, Wanner, Geometric Numerical Integration (2006), section I.1.4.
    """
    return _scaled("step", "dt^2 * beta_up", beta, ("dt", dt), lambda b: dt * dt * b)


def manifold_step(
    alpha: float, beta: Finding, *, gradient: float | None, a: float = 1.0, b: float = 0.5
) -> Finding:
    """Return alpha * L_R for a retraction R: below 2 for descent along it.

    L_R = a^2 beta + 2 b max |grad f|, with |R(s) - x| <= a |s| and |R(s) - x - s| <= b |s|^2
    (Boumal, Absil, Cartis, IMA J. Numer. Anal. 39, 2019, Lemma 2.7). The unit sphere with
    normalisation has a = 1, b = 1/2. 2/beta, the Euclidean bound, is a trap: it forgets that the
    sphere bends.

    Args:
        alpha: The step.
        beta: Bound of the Euclidean curvature near the manifold.
        gradient: A proved bound of |grad f| on the manifold; None where there is none.
        a: First constant of the retraction.
        b: Second constant of the retraction.
    """
    if gradient is None:
        return Finding(
            name="manifold_step",
            value=None,
            kind=Kind.RIGOROUS,
            method="alpha * L_R",
            found="no bound of |grad f| on the manifold is known",
            meaning="The Lipschitz constant along the retraction is not known",
            remedy="Use Armijo's rule, which measures the decrease at each step",
        )
    words = f"L_R = {a:g} beta + {2 * b:g} max|grad f|"
    return _scaled(
        "manifold_step",
        f"alpha * L_R, {words}",
        beta,
        ("alpha", alpha),
        lambda top: alpha * (a * a * top + 2 * b * gradient),
    )


def momentum(largest: float, alpha: float, gamma: Finding) -> Finding:
    """Return max m_k^2 (1 + alpha l), l = max(0, -gamma_low): at most 1 for a weakly convex f.

    Wen, Chen, Pong, SIAM J. Optim. 27 (2017), for f + (l/2)|.|^2 convex.
    """
    if gamma.value is None:
        return replace(gamma, name="momentum", relation=step(1.0, gamma).relation)
    weak = max(0.0, -gamma.value)
    value = largest**2 * (1 + alpha * weak) * (1 + 4 * U)
    return Finding(
        name="momentum",
        value=value,
        kind=gamma.kind,
        delta=gamma.delta,
        method="m^2 (1 + alpha l)",
        found=f"m^2 (1 + alpha l) is {value:.4g}, with l = {weak:.4g}",
        meaning="The potential may rise, so nothing bounds the iterates",
        remedy=f"Use momentum of at most {1 / math.sqrt(1 + alpha * weak):.4g}, or plain steps",
    )


def primal_dual_step(tau: float, sigma: float, norm: float | None, beta: Finding) -> Finding:
    """Return (beta_up / 2) / (1/tau - sigma |K|^2): at most 1.

    Condat, J. Optim. Theory Appl. 158 (2013), Theorem 3.1; Vu, Adv. Comput. Math. 38 (2013).
    For f = 0 it is tau sigma |K|^2 < 1, of Chambolle and Pock (2011).

    Args:
        tau: Primal step.
        sigma: Dual step.
        norm: A proved upper bound of |K|, None where there is none.
        beta: Of the smooth part.
    """
    value = None
    if norm is not None and beta.value is not None:
        room = 1 / tau - sigma * norm**2 * (1 + 8 * U)
        value = beta.value / 2 / room if room > 8 * U / tau else math.inf
    found = "no bound of |K| or of beta is known"
    if value is not None:
        found = f"(beta_up/2) / (1/tau - sigma |K|^2) is {value:.4g}"
    return Finding(
        name="primal_dual_step",
        value=value,
        kind=beta.kind,
        delta=beta.delta,
        method="Condat-Vu",
        found=found,
        meaning="The primal-dual iteration may diverge",
        remedy="Take tau = 1/(beta_up/2 + sigma |K|^2) or less",
    )


def _scaled(
    name: str,
    method: str,
    beta: Finding,
    step: tuple[str, float],
    rule: Callable[[float], float],
) -> Finding:
    letter, length = step
    value = None
    if beta.value is not None:
        value = rule(beta.value) * (1 + 8 * U) if length > 0 else math.inf
    shown = "not known" if value is None else f"{value:.4g}"
    return Finding(
        name=name,
        value=value,
        kind=beta.kind,
        delta=beta.delta,
        method=f"{method}; {beta.method}",
        found=f"{method.partition(',')[0]} is {shown}, with {letter} = {length:.4g}",
        meaning=_MEANING if length > 0 else "A step has to be positive",
        remedy=f"Choose a smaller {letter}, or let the engine choose it from beta_up",
    )
