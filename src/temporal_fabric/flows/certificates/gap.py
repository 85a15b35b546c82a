"""The duality gap: how far an energy can be above its minimum, from a dual point.

For E(x) = sum_i w_i phi_i(A_i x) + sum_j w_j p_j(K_j x) and any q_i, p_j with
sum A_i'q_i + sum K_j'p_j = 0, Fenchel's inequality gives

    E(x) - min E <= E(x) + sum_i (w_i phi_i)*(q_i) + sum_j (w_j p_j)*(p_j).

(Rockafellar, Convex Analysis, 1970, Theorem 31.1.) q_i is the gradient of the loss. Of each slot
one term, the absorber, takes what is left over, so that the equation holds exactly:

- a penalty with a bounded domain: its conjugate is finite everywhere;
- a quadratic term c |x - t|^2 / 2, as of an elastic net, or of denoising: the same;
- a coercive penalty with K'K = c I, as l1 of wavelets: the dual point is scaled into its ball.

Whatever the point, the number is an upper bound; a good dual point makes it a small one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from temporal_fabric.flows.certificates.record import Finding, Kind
from temporal_fabric.flows.certificates.rounding import of_fft, of_sum
from temporal_fabric.flows.energy import SmoothTerm
from temporal_fabric.flows.losses import Squared
from temporal_fabric.flows.precision import CERT_DTYPE, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jax import Array

    from temporal_fabric.flows.energy import Energy, NonsmoothTerm, State

__all__ = ["Gap", "duality_gap", "gap"]

Absorber = tuple[Literal["compact", "quadratic", "scaled"], int, float]
"""How a slot's equation is met: the way, the index of the term, and the c of its K'K = c I."""


@dataclass(frozen=True)
class Gap:
    """A primal and a dual value, evaluated in float64."""

    primal: float
    dual: float
    """A lower bound of the minimum, rounding not yet taken off; keep the largest of a run."""

    error: float
    """What rounding may have done to both."""

    method: str

    @property
    def value(self) -> float:
        """An upper bound of E - min E."""
        return max(0.0, self.primal - self.dual) + self.error


def duality_gap(energy: Energy, state: State, duals: Mapping[int, Any] | None = None) -> Gap | str:
    """Return the gap at a state, or in words why there is none.

    Args:
        energy: In any dtype; evaluated in float64 as it is.
        state: The point.
        duals: Dual variables p_j of nonsmooth terms by their index, as a primal-dual scheme has
            them. They need not be feasible: they are projected first. Without one, a term that
            is no absorber gets the projection of what the gradient suggests.
    """
    refusal = _refused(energy)
    if refusal:
        return refusal
    plan: list[tuple[str, Absorber]] = []
    for slot in state:
        absorber = _absorber(energy, slot)
        if absorber is None:
            return f"no term of {slot} can take up the dual point: add a Tikhonov term or a box"
        plan.append((slot, absorber))
    wide: Energy = cast(energy, CERT_DTYPE)
    at: State = cast(state, CERT_DTYPE)
    given = {} if duals is None else {key: cast(value, CERT_DTYPE) for key, value in duals.items()}
    size = sum(math.prod(x.shape) for x in at.values())
    primal, dual, moduli = _evaluate(wide, at, given, tuple(plan), of_fft(size))
    error = (of_sum(64) + of_fft(size)) * float(moduli)
    methods = ", ".join(dict.fromkeys(kind for _, (kind, _, _) in plan))
    return Gap(float(primal), float(dual), error, f"Fenchel dual, {methods} absorber")


def gap(
    found: Gap | str, *, floor: float = 0.0, strong: float | None = None, dual: float | None = None
) -> Finding:
    """Return the gap relative to the energy.

    Args:
        found: From `duality_gap`.
        floor: Energy below which the gap is taken relative to this instead. Where min E is 0,
            an energy and its gap go to zero together.
        strong: That of `strong_gap`, an absolute gap too; the smaller one counts.
        dual: The largest dual value seen earlier in the run; it bounds the minimum as well.
    """
    if isinstance(found, str):
        return Finding(
            name="gap",
            value=None,
            kind=Kind.RIGOROUS,
            method="not available",
            found=f"there is no duality gap: {found}",
            meaning="Nothing bounds the objective's distance to its minimum",
            remedy="Change the problem as said, or be content with stationarity",
        )
    best = found.dual if dual is None else max(found.dual, dual)
    absolute, method = max(0.0, found.primal - best) + found.error, found.method
    if strong is not None and strong + found.error < absolute:
        absolute, method = strong + found.error, "E(z) - E(z+) + |G|^2/(2 gamma)"
    scale = max(abs(found.primal), floor, float(np.finfo(np.float64).tiny))
    value = absolute / scale if math.isfinite(found.primal) else math.inf
    return Finding(
        name="gap",
        value=value,
        kind=Kind.RIGOROUS,
        error=found.error / scale,
        method=method,
        found=f"the energy {found.primal:.6g} is within {absolute:.3g} of its minimum",
        meaning="The minimum may be lower by more than was asked for",
        remedy="Run more iterations, restart the momentum, or polish in float64",
    )


def _refused(energy: Energy) -> str:
    for term in energy.smooth:
        if not isinstance(term, SmoothTerm):
            return f"the conjugate of {type(term).__name__} is not known"
    for penalty in energy.nonsmooth:
        if not penalty.penalty.traits().convex:
            return f"{penalty.name} is not convex"
    return ""


def _absorber(energy: Energy, slot: str) -> Absorber | None:
    own = [(k, term) for k, term in enumerate(energy.nonsmooth) if term.variable == slot]
    isometries = [(k, term, term.operator.facts().isometry) for k, term in own]
    exact = [(k, term, c) for k, term, c in isometries if c is not None and c > 0]
    for k, term, c in exact:
        if term.penalty.traits().compact:
            return ("compact", k, c)
    for k, smooth in enumerate(energy.smooth):
        if isinstance(smooth, SmoothTerm) and smooth.variables == (slot,):
            scale = smooth.operators[slot].facts().isometry
            if isinstance(smooth.loss, Squared) and scale and float(smooth.weight) > 0:
                return ("quadratic", k, scale)
    for k, term, c in exact:
        if len(own) == 1 and term.penalty.traits().coercive:
            return ("scaled", k, c)
    return None


@partial(jax.jit, static_argnums=3)
def _evaluate(
    energy: Energy,
    state: State,
    given: dict[int, Array],
    plan: tuple[tuple[str, Absorber], ...],
    relative: float,
) -> tuple[Array, Array, Array]:
    """Return the primal value, the dual value, and the sum of moduli of all that was added."""
    smooth = [term for term in energy.smooth if isinstance(term, SmoothTerm)]
    quadratic = {k for _, (kind, k, _) in plan if kind == "quadratic"}
    gradients = {
        k: term.weight * term.loss.grad(term.predict(state))
        for k, term in enumerate(smooth)
        if k not in quadratic
    }
    scale = _scale(energy, gradients, state, plan, relative)
    total = jnp.zeros((), jnp.dtype(CERT_DTYPE))
    moduli = jnp.zeros_like(total)
    for k, gradient in gradients.items():
        weight, loss = smooth[k].weight, smooth[k].loss
        conjugate = weight * loss.conjugate(scale * gradient / weight)
        total = total - conjugate
        moduli = moduli + jnp.abs(conjugate) + jnp.sum(gradient**2) / weight
    for slot, absorber in plan:
        pulled = _pulled(smooth, gradients, slot, state[slot])
        part, size = _slot_dual(energy, slot, absorber, scale * pulled, given)
        total, moduli = total + part, moduli + size
    primal = energy.value(state)
    return primal, total, moduli + jnp.abs(energy.f(state)) + jnp.abs(energy.g(state))


def _scale(
    energy: Energy,
    gradients: dict[int, Array],
    state: State,
    plan: tuple[tuple[str, Absorber], ...],
    relative: float,
) -> Array:
    """Return the s by which all q_i are scaled: feasible, and best where f is quadratic."""
    smooth = [term for term in energy.smooth if isinstance(term, SmoothTerm)]
    nonsmooth = energy.nonsmooth
    feasible = jnp.ones((), jnp.dtype(CERT_DTYPE))
    for slot, (kind, k, c) in plan:
        if kind == "scaled":
            pulled = _pulled(smooth, gradients, slot, state[slot])
            v = nonsmooth[k].operator.matvec(pulled) / c
            feasible = jnp.minimum(feasible, nonsmooth[k].dual_scale(_raised(v, relative)))
    if any(not isinstance(smooth[k].loss, Squared) for k in gradients):
        return feasible
    # -s <r, y> - s^2 |r|^2 / 2, weighted, is largest here; s = 1 at the minimiser.
    slope, bend = jnp.zeros_like(feasible), jnp.zeros_like(feasible)
    for k, gradient in gradients.items():
        slope = slope - jnp.sum(gradient * smooth[k].loss.target)  # type: ignore[attr-defined]
        bend = bend + jnp.sum(gradient**2) / smooth[k].weight
    best = jnp.where(bend > 0, slope / jnp.where(bend > 0, bend, 1), 0)
    scaled = any(kind == "scaled" for _, (kind, _, _) in plan)
    return jnp.clip(best, 0, feasible) if scaled else feasible


def _raised(v: Array, relative: float) -> Array:
    """Return v with every modulus raised by what rounding may have taken from it."""
    size = jnp.abs(v)
    error = 4 * relative * jnp.sqrt(jnp.sum(size**2))
    return v * (1 + error / jnp.where(size > 0, size, 1)).astype(v.dtype) + jnp.where(
        size > 0, 0, error
    ).astype(v.dtype)


def _pulled(smooth: list[SmoothTerm], gradients: dict[int, Array], slot: str, like: Array) -> Array:
    """Return sum A_i'q_i in one slot."""
    total = jnp.zeros_like(like)
    for k, gradient in gradients.items():
        if slot in smooth[k].operators:
            total = total + smooth[k].operators[slot].adjoint(gradient)
    return total


def _slot_dual(
    energy: Energy, slot: str, absorber: Absorber, pulled: Array, given: dict[int, Array]
) -> tuple[Array, Array]:
    """Return minus the conjugates of a slot's own terms, and the moduli of what they sum."""
    kind, absorbing, c = absorber
    total = jnp.zeros((), jnp.dtype(CERT_DTYPE))
    moduli = jnp.zeros_like(total)
    left = pulled
    for k, term in enumerate(energy.nonsmooth):
        if term.variable != slot or (k == absorbing and kind != "quadratic"):
            continue
        p = _feasible(energy, term, given.get(k), left, absorber)
        conjugate = term.conjugate(p)
        total, moduli = total - conjugate, moduli + jnp.abs(conjugate)
        left = left + term.operator.adjoint(p)
    if kind == "quadratic":
        anchor = energy.smooth[absorbing]
        q = -anchor.operators[slot].matvec(left) / c  # type: ignore[attr-defined]
        conjugate = anchor.weight * anchor.loss.conjugate(q / anchor.weight)  # type: ignore[attr-defined]
        size = jnp.sum(q**2) / anchor.weight  # type: ignore[attr-defined]
        return total - conjugate, moduli + jnp.abs(conjugate) + size
    term = energy.nonsmooth[absorbing]
    conjugate = term.conjugate(-term.operator.matvec(left) / c)
    return total - conjugate, moduli + jnp.abs(conjugate) + jnp.sum(jnp.abs(left))


def _feasible(
    energy: Energy, term: NonsmoothTerm, given: Array | None, left: Array, absorber: Absorber
) -> Array:
    """Return a dual point of a term that is no absorber: the given one, or a good guess."""
    one = jnp.ones((), jnp.dtype(CERT_DTYPE))
    if given is not None:
        p = term.dual_prox(given, one)
    else:
        guess = -term.operator.matvec(left) / getattr(term.operator, "frame_constant", 1.0)
        step = one
        if absorber[0] == "quadratic":
            anchor = energy.smooth[absorber[1]]
            step = anchor.weight * absorber[2]  # type: ignore[attr-defined]
            target = anchor.operators[term.variable].adjoint(anchor.loss.target)  # type: ignore[attr-defined]
            guess = guess + anchor.weight * term.operator.matvec(target)  # type: ignore[attr-defined]
        p = term.dual_prox(guess, step)
    return p * term.dual_scale(_raised(p, 0.0)).astype(p.dtype)
