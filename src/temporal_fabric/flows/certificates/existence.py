"""Whether a minimiser exists: without one, a flow goes on for ever and a gap stays infinite.

Weierstrass: a lower semicontinuous energy that is finite somewhere and grows without bound in
every direction has a minimiser. For a convex energy it is enough that no direction leaves both
f and g bounded (Rockafellar, Convex Analysis, 1970, Theorem 27.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp

from temporal_fabric.flows.certificates.record import Finding, Kind, Relation
from temporal_fabric.flows.differences import Gradient
from temporal_fabric.flows.energy import SmoothTerm
from temporal_fabric.flows.losses import Squared
from temporal_fabric.flows.precision import CERT_DTYPE, cast

if TYPE_CHECKING:
    from temporal_fabric.flows.energy import Energy, NonsmoothTerm, State

__all__ = ["existence"]

_VISIBLE = 1e-8
"""|A 1| relative to |1| above which a constant is not in the kernel of A."""


def existence(
    energy: Energy, state: State, gamma: Finding, *, compact: frozenset[str] = frozenset()
) -> Finding:
    """Return 1 where a minimiser is proved to exist, slot by slot, else 0.

    Args:
        energy: f + g.
        state: For the shapes.
        gamma: `gamma_low`; positive and proved, it makes f strongly convex.
        compact: Slots that live on a compact manifold.
    """
    if gamma.value is not None and gamma.value > 0 and gamma.proves:
        # Every penalty is bounded below and closed, convex or not.
        return _finding([], "strong convexity")
    below = all(isinstance(term, SmoothTerm) and float(term.weight) >= 0 for term in energy.smooth)
    reasons = {slot: _reason(energy, state, slot, below=below) for slot in state}
    reasons |= dict.fromkeys(compact & set(state), "compact manifold")
    unproved = [slot for slot, reason in reasons.items() if not reason]
    return _finding(unproved, ", ".join(dict.fromkeys(filter(None, reasons.values()))))


def _reason(energy: Energy, state: State, slot: str, *, below: bool) -> str:
    own = [term for term in energy.nonsmooth if term.variable == slot]
    for term in own:
        traits = term.penalty.traits()
        if _injective(term) and float(term.weight) > 0:
            if traits.compact:
                return f"{term.name} is bounded"
            if traits.coercive and below:
                return f"{term.name} is coercive, f is bounded below"
    variation = [
        term
        for term in own
        if isinstance(term.operator, Gradient)
        and term.penalty.traits().coercive
        and float(term.weight) > 0
    ]
    if variation and below and _is_convex(energy) and _sees_constants(energy, state, slot):
        return f"{variation[0].name} leaves only constants, and f sees them"
    return ""


def _injective(term: NonsmoothTerm) -> bool:
    isometry = term.operator.facts().isometry
    return isometry is not None and isometry > 0


def _is_convex(energy: Energy) -> bool:
    return all(term.penalty.traits().convex for term in energy.nonsmooth)


def _sees_constants(energy: Energy, state: State, slot: str) -> bool:
    """Return whether a quadratic term of this slot alone grows along constant arrays."""
    ones = jnp.ones(state[slot].shape, jnp.dtype(CERT_DTYPE))
    for term in energy.smooth:
        if not isinstance(term, SmoothTerm) or term.variables != (slot,):
            continue
        if isinstance(term.loss, Squared) and float(term.weight) > 0:
            wide: SmoothTerm = cast(term, CERT_DTYPE)
            image = wide.operators[slot].matvec(ones)
            seen = jnp.linalg.norm(image.reshape(-1)) > _VISIBLE * jnp.sqrt(float(ones.size))
            if bool(seen):
                return True
    return False


def _finding(unproved: list[str], reason: str) -> Finding:
    found = f"a minimiser exists: {reason}"
    if unproved:
        found = f"that a minimiser exists is not proved in {', '.join(unproved)}"
    return Finding(
        name="existence",
        value=0.0 if unproved else 1.0,
        kind=Kind.RIGOROUS,
        relation=Relation.AT_LEAST,
        method=reason or "no coercive term, no bounded set, no strong convexity",
        found=found,
        meaning="The energy may fall for ever along a direction that nothing bounds, and no dual"
        " point gives a finite gap",
        remedy="Add a penalty on every coefficient, a box, or a Tikhonov term",
    )
