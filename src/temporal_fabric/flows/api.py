"""The engine's front door: read, compile, step, run a chunk, run certified, load and resume."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from temporal_fabric.flows.chunk import Chunk, run_chunk
from temporal_fabric.flows.compiling import Compiled, compile_flow
from temporal_fabric.flows.reading import read_spec, read_spec_file
from temporal_fabric.flows.running import resume_certified, run_certified
from temporal_fabric.flows.runs import load_run, load_run_manifest, resume_run
from temporal_fabric.flows.schemes.proximal import Proximal
from temporal_fabric.flows.schemes.riemannian import Riemannian

if TYPE_CHECKING:
    from temporal_fabric.flows.operators import Operator
    from temporal_fabric.flows.schemes.contract import Carry, Problem, Scheme
    from temporal_fabric.flows.states import State

__all__ = [
    "advance",
    "compile_flow",
    "load_run",
    "load_run_manifest",
    "read_spec",
    "read_spec_file",
    "resume_certified",
    "resume_run",
    "run_certified",
    "run_flow_step",
]


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


def advance(
    compiled: Compiled, carry: Carry | None = None, *, iterations: int, sample_every: int = 1
) -> Chunk:
    """Run a chunk of a compiled flow, from its start or from where a chunk ended.

    Args:
        compiled: The flow.
        carry: Of the chunk before; None for the start.
        iterations: A multiple of ``sample_every``.
        sample_every: Iterations for each row of telemetry.
    """
    if carry is None:
        carry = compiled.scheme.init(compiled.problem, compiled.start)
    return run_chunk(
        compiled.scheme,
        compiled.problem,
        carry,
        iterations=iterations,
        sample_every=sample_every,
        observables=compiled.observables,
    )
