"""A chunk of a run: one compiled `lax.scan`, telemetry as its outputs, no call to the host.

The carry and the problem are arguments, so chunks of one shape and length share one program.
Chunk boundaries are counted in iterations: a run that stopped between two chunks goes on with
the same bits.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from temporal_fabric.flows.observables import Observables
from temporal_fabric.flows.schemes.contract import Carry, Check, Problem, Scheme, begin
from temporal_fabric.flows.states import norm, total

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jax import Array

    from temporal_fabric.flows.compiling import Compiled
    from temporal_fabric.flows.sharding import Sharding

__all__ = ["Chunk", "Job", "advance", "run_chunk", "run_chunks"]


@dataclass(frozen=True)
class Chunk:
    """What a chunk leaves."""

    carry: Carry
    rows: dict[str, Array]
    """One entry for each sampled iteration, by the column's name."""

    worst_violation: float
    """Largest violation of the descent inequality over every step, sampled or not."""

    worst_curvature: float
    """Largest beta_k / beta over every step that was kept."""


class _Plan(NamedTuple):
    """What of a chunk is static in its program."""

    samples: int
    sample_every: int
    sharding: Sharding | None = None


@dataclass(frozen=True)
class Job:
    """What a chunk is run on."""

    scheme: Scheme
    problem: Problem
    carry: Carry
    observables: Observables
    sharding: Sharding | None = None

    @property
    def shape(self) -> Any:
        """What two jobs must share to run in one program."""
        leaves, tree = jax.tree.flatten((self.problem, self.carry, self.observables))
        return self.scheme, tree, tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves)

    def run(self, iterations: int, sample_every: int) -> Chunk:
        """Run it alone."""
        return run_chunk(
            self.scheme,
            self.problem,
            self.carry,
            iterations=iterations,
            sample_every=sample_every,
            observables=self.observables,
            sharding=self.sharding,
        )


def run_chunks(jobs: Sequence[Job], *, iterations: int, sample_every: int = 1) -> list[Chunk]:
    """Run several jobs of one shape as one program, which is faster than one after the other.

    Their sums are taken in another order than alone: results agree to rounding, not bit for bit.

    Args:
        jobs: At least one, all of one `Job.shape`.
        iterations: Of each, as for `run_chunk`.
        sample_every: Iterations for each row of telemetry.
    """
    # Few sizes are compiled: the last job fills up to a power of two, and what it adds is dropped.
    filled = [*jobs, *[jobs[-1]] * ((1 << (len(jobs) - 1).bit_length()) - len(jobs))]
    tree = jax.tree.structure((filled[0].problem, filled[0].observables))
    columns = list(
        zip(*(jax.tree.leaves((one.problem, one.observables)) for one in filled), strict=True)
    )
    # What all have in common, as a kernel, stays one array: products with it stay products.
    shared = tuple(all(np.array_equal(one, column[0]) for one in column) for column in columns)
    leaves = tuple(
        column[0] if same else jnp.stack(column)
        for column, same in zip(columns, shared, strict=True)
    )
    begun = jax.tree.map(lambda *parts: jnp.stack(parts), *(one.carry for one in filled))
    plan = _Plan(iterations // sample_every, sample_every)
    with jax.numpy_dtype_promotion("strict"):
        carries, rows = _batched(jobs[0].scheme, plan, (tree, shared), leaves, begun)
    each = [jax.tree.map(operator.itemgetter(n), (carries, rows)) for n in range(len(jobs))]
    return [_chunk(carry, row) for carry, row in each]


@partial(jax.jit, static_argnums=(0, 1, 2))
def _batched(
    scheme: Scheme,
    plan: _Plan,
    form: tuple[Any, tuple[bool, ...]],
    leaves: tuple[Array, ...],
    carries: Carry,
) -> Any:
    tree, shared = form

    def one(own: tuple[Array, ...], carry: Carry) -> Any:
        problem, observables = jax.tree.unflatten(tree, own)
        return _scanned(scheme, plan, problem, observables, carry)

    axes = tuple(None if same else 0 for same in shared)
    return jax.vmap(one, in_axes=(axes, 0))(leaves, carries)


def run_chunk(
    scheme: Scheme,
    problem: Problem,
    carry: Carry,
    *,
    iterations: int,
    sample_every: int = 1,
    observables: Observables | None = None,
    sharding: Sharding | None = None,
) -> Chunk:
    """Run a number of iterations on the device.

    Args:
        scheme: Static in the program.
        problem: Energy and numbers of the steps.
        carry: From ``scheme.init`` or from the chunk before.
        iterations: A multiple of ``sample_every``.
        sample_every: Iterations for each row of telemetry. Checks are made on every iteration
            all the same; a row has the worst of its own.
        observables: What is measured at each sample.
        sharding: Where problem and carry lie; None: on one device.

    Raises:
        ValueError: ``iterations`` is not a positive multiple of ``sample_every``.
    """
    if iterations < 1 or sample_every < 1 or iterations % sample_every:
        raise ValueError(
            "a chunk is a positive multiple of the sampling interval"
            f" [iterations={iterations}, sample_every={sample_every}]; change one of the two"
        )
    with jax.numpy_dtype_promotion("strict"):
        plan = _Plan(iterations // sample_every, sample_every, sharding)
        carry, rows = _scanned(scheme, plan, problem, observables or Observables(), carry)
    return _chunk(carry, rows)


def _chunk(carry: Carry, rows: dict[str, Array]) -> Chunk:
    worst = jnp.max(rows["descent_violation"]), jnp.max(rows["curvature_ratio"])
    return Chunk(carry, rows, float(worst[0]), float(worst[1]))


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
        carry = compiled.placed(begin(compiled.scheme, compiled.problem, compiled.start))
    return run_chunk(
        compiled.scheme,
        compiled.problem,
        carry,
        iterations=iterations,
        sample_every=sample_every,
        observables=compiled.observables,
        sharding=compiled.sharding,
    )


@partial(jax.jit, static_argnums=(0, 1))
def _scanned(
    scheme: Scheme,
    plan: _Plan,
    problem: Problem,
    observables: Observables,
    carry: Carry,
) -> tuple[Carry, dict[str, Array]]:
    samples, sample_every, sharding = plan

    def held(carry: Carry) -> Carry:
        return carry if sharding is None else sharding.held(carry)

    def one_step(pair: tuple[Carry, Check], _: None) -> tuple[tuple[Carry, Check], None]:
        carry, worst = pair
        carry, found = scheme.step(problem, carry)
        return (carry, _worse(worst, found)), None

    def one_sample(carry: Carry, _: None) -> tuple[Carry, dict[str, Any]]:
        zero, none = jnp.zeros((), problem.alpha.dtype), jnp.zeros((), jnp.int32)
        start = Check(jnp.full_like(zero, -jnp.inf), zero, none, none)
        (carry, worst), _ = jax.lax.scan(one_step, (carry, start), None, sample_every)
        carry = held(carry)
        return carry, _row(problem, observables, carry, worst)

    return jax.lax.scan(one_sample, held(scheme.refresh(problem, carry)), None, samples)


def _worse(one: Check, other: Check) -> Check:
    # `maximum` keeps a NaN, which must come out as a violation.
    return Check(
        jnp.maximum(one.violation, other.violation),
        jnp.maximum(one.curvature, other.curvature),
        one.rejected + other.rejected,
        one.restarted + other.restarted,
    )


def _row(problem: Problem, observables: Observables, carry: Carry, worst: Check) -> dict[str, Any]:
    energy, z = problem.energy, carry.z
    values = [
        term.weight * term.penalty.value(u)
        for term, u in zip(energy.nonsmooth, carry.coefficients, strict=True)
    ]
    row: dict[str, Any] = {
        "iter": carry.iteration,
        "alpha": carry.alpha,
        "E": energy.f_at(z, carry.images) + total(values, z),
        "grad_norm": norm(carry.gradient),
        "step_norm": jnp.sqrt(carry.square),
        "descent_violation": worst.violation,
        "curvature_ratio": worst.curvature,
        "rejected": worst.rejected,
        "restarted": worst.restarted,
        **observables.row(z),
    }
    if carry.coefficients:
        count = sum(u.size for u in carry.coefficients)
        zeros = jnp.stack([jnp.sum((u == 0).astype(jnp.int32)) for u in carry.coefficients]).sum()
        row["sparsity_wx"] = zeros.astype(problem.alpha.dtype) / count
    if problem.scales is not None:
        row["level_active_max"] = carry.active
    return row
