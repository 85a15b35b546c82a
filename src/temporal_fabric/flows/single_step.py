"""One step of the primitives on a compiled flow, without a carry."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from temporal_fabric.flows.schemes.proximal import Proximal
from temporal_fabric.flows.schemes.riemannian import Riemannian

if TYPE_CHECKING:
    from temporal_fabric.flows.compiling import Compiled
    from temporal_fabric.flows.operators import Operator
    from temporal_fabric.flows.schemes.contract import Problem, Scheme
    from temporal_fabric.flows.states import State

__all__ = ["run_flow_step"]


def run_flow_step(x: Any, compiled: Compiled, eta: float, W: Operator | None = None) -> Any:  # noqa: N803 - the field's name
    """Return the state after one plain step: F_Dis, F_Multi, F_Proj, F_Multi^-1.

    Args:
        x: A state, or the array of its only slot.
        compiled: The flow.
        eta: The step; below 2 / beta_up.
        W: Lens in place of the compiled one, for the only nonsmooth term.

    Raises:
        ValueError: A lens was given and there is not exactly one nonsmooth term, or it has no
            closed prox there.
    """
    slots = list(compiled.start)
    state: State = dict(x) if isinstance(x, dict) else {slots[0]: x}
    state = {**compiled.start, **{slot: jnp.asarray(v) for slot, v in state.items()}}
    energy = compiled.energy
    if W is not None:
        if len(energy.nonsmooth) != 1 or getattr(W, "frame", None) not in (
            "orthonormal",
            "co_isometry",
        ):
            raise ValueError(
                "a lens replaces that of one nonsmooth term, and needs W W' = c I"
                f" [terms={len(energy.nonsmooth)}]; leave W out"
            )
        term = replace(energy.nonsmooth[0], operator=W)
        energy = replace(energy, nonsmooth=(term,))
    step = jnp.asarray(eta, compiled.spec.dtype)
    problem = replace(compiled.problem, energy=energy, alpha=step, scales=None)
    scheme = Riemannian() if problem.manifolds else Proximal()
    after: State = _one_step(scheme, problem, state)
    return after if isinstance(x, dict) else after[slots[0]]


def _step(scheme: Scheme, problem: Problem, state: State) -> State:
    carry, _ = scheme.step(problem, scheme.init(problem, state))
    return carry.z


_one_step = jax.jit(_step, static_argnums=0)
