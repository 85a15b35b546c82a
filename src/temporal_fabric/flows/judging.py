"""The three decisions on a compiled flow: before the run, on each chunk, and on the result."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from temporal_fabric.flows.certificates import descent
from temporal_fabric.flows.certificates.certify import Plan, certify
from temporal_fabric.flows.certificates.decision import Decision, decide
from temporal_fabric.flows.certificates.gap import duality_gap, gap
from temporal_fabric.flows.certificates.hamiltonian import rest
from temporal_fabric.flows.certificates.manifold import armijo, feasibility
from temporal_fabric.flows.certificates.observed import (
    Drift,
    finite,
    holdout,
    invariants,
    physics,
)
from temporal_fabric.flows.certificates.profiles import (
    Scheme,
    Stage,
)
from temporal_fabric.flows.certificates.record import Finding, Kind
from temporal_fabric.flows.certificates.refinement import refinement
from temporal_fabric.flows.certificates.rounding import U
from temporal_fabric.flows.certificates.stationarity import kkt, strong_gap
from temporal_fabric.flows.chosen import profile_of
from temporal_fabric.flows.chunk import run_chunk
from temporal_fabric.flows.energy import value_of
from temporal_fabric.flows.leapfrog_trials import flights
from temporal_fabric.flows.precision import CERT_DTYPE, cast
from temporal_fabric.flows.schemes.contract import begin, changed
from temporal_fabric.flows.schemes.hamiltonian import HamiltonianDamped
from temporal_fabric.flows.schemes.primal_dual import Duals
from temporal_fabric.flows.schemes.proximal import Proximal, forward_backward
from temporal_fabric.flows.states import norm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from temporal_fabric.flows.chunk import Chunk
    from temporal_fabric.flows.compiling import Compiled
    from temporal_fabric.flows.energy import NonsmoothTerm
    from temporal_fabric.flows.schemes.contract import Carry, Problem
    from temporal_fabric.flows.states import State

__all__ = ["at_exit", "before", "during", "energy_of"]

_FLIGHTS = frozenset({"energy_order", "reversal"})
"""Found before the run, and asked for at its end."""

_TRIAL = 5
"""Steps by which a flow on a manifold shows that it descends."""


def before(compiled: Compiled) -> tuple[Decision, tuple[Finding, ...]]:
    """Return the decision before the first step, and what it rests on."""
    spec = compiled.spec
    plan = _plan(compiled)
    findings = certify(compiled.energy, compiled.start, plan, seed=spec.seed, dtype=spec.dtype)
    lint = Finding(
        name="lint",
        value=0.0,
        kind=Kind.RIGOROUS,
        method="specification read and compiled",
        found="the specification has no problems",
    )
    found = (lint, *findings, *_armijo(compiled), *_flights(compiled))
    return decide(profile_of(spec), found, Stage.BEFORE), found


def during(compiled: Compiled, chunk: Chunk) -> Decision:
    """Return the decision on the steps of a chunk."""
    spec, iteration = compiled.spec, int(chunk.carry.iteration)
    name = "shadow_energy" if spec.flow.family == "hamiltonian_damped" else "descent"
    found = [
        descent.descent(chunk.worst_violation, iteration, spec.flow.family, name=name),
        descent.beta_k(chunk.worst_curvature, iteration),
        finite((chunk.carry.z, chunk.carry.alpha)),
        *_drifts(compiled, chunk.carry),
    ]
    return decide(profile_of(spec), found, Stage.DURING)


def at_exit(
    compiled: Compiled,
    carry: Carry,
    findings: tuple[Finding, ...],
    *,
    dual: float | None = None,
    coarser: tuple[float, float] | None = None,
    polished: bool = False,
) -> tuple[Decision, float | None]:
    """Return the decision on a result, and the largest dual value seen so far.

    Args:
        compiled: The flow.
        carry: Where it stands.
        findings: Of `before`.
        dual: The largest dual value seen so far in the run.
        coarser: Energies at 4 and 2 times the mesh width, where a test of refinement is wanted.
        polished: Whether float64 steps have followed a float32 flow.
    """
    gamma = next(one for one in findings if one.name == "gamma_low")
    mapping, curvature, fall = _mapping(compiled, carry.z)
    found = duality_gap(compiled.energy, carry.z, _duals(compiled, carry))
    strong = None if mapping is None or fall is None else strong_gap(mapping, gamma, fall)
    named = [gap(found, floor=_least(compiled, carry.z), strong=strong, dual=dual)]
    if mapping is not None:
        size = float(norm(carry.z))
        named.append(kkt(mapping, size, float(compiled.problem.alpha), curvature))
    named += [*_feasible(compiled, carry.z), *_observed(compiled, carry.z)]
    named += [one for one in findings if one.name in _FLIGHTS]
    if isinstance(compiled.scheme, HamiltonianDamped):
        momentum, position = float(norm(carry.extra)), float(norm(carry.z))
        named.append(rest(momentum, position, float(compiled.problem.beta_up)))
    if coarser is not None:
        named.append(_refined(compiled, carry.z, coarser))
    best = dual
    if not isinstance(found, str) and math.isfinite(found.dual):
        best = found.dual if dual is None else max(dual, found.dual)
    return decide(profile_of(compiled.spec, polished=polished), named, Stage.EXIT), best


def _least(compiled: Compiled, z: State) -> float:
    """Return the energy that rounding leaves of data which a state explains exactly.

    Of min E = 0 no gap is a small part. This is a unit roundoff of f(0), which is a property of
    the data: the start, which anybody may choose, must not decide what counts as small.
    """
    nothing = jax.tree.map(jnp.zeros_like, z)
    energy, wide = cast((compiled.energy, nothing), CERT_DTYPE)
    size = float(energy.f(wide)) * float(jnp.finfo(compiled.spec.dtype).eps)
    return size if math.isfinite(size) else 0.0


def energy_of(compiled: Compiled, z: State) -> float:
    """Return E at a state, in float64."""
    energy, wide = cast((compiled.energy, z), CERT_DTYPE)
    return float(value_of(energy, wide))


def _plan(compiled: Compiled) -> Plan:
    problem, spec = compiled.problem, compiled.spec
    curved = dict(problem.manifolds)
    metric = prox = None
    for number, p in problem.metric.items():
        metric = cast(p, CERT_DTYPE)
        prox = partial(_metric_prox, compiled.energy.nonsmooth[number] if number >= 0 else None, p)
    return Plan(
        scheme=Scheme(spec.flow.family),
        alpha=float(problem.alpha),
        sigma=float(problem.sigma),
        metric=metric,
        prox=prox,
        compact=frozenset(slot for slot, one in curved.items() if one.compact),
        curved=bool(curved),
    )


def _metric_prox(term: NonsmoothTerm | None, p: jax.Array, u: jax.Array) -> jax.Array:
    """Return the prox of a term in the metric p, as the preconditioned scheme applies it."""
    return u if term is None else term.penalty.prox(u, term.weight / p.astype(u.dtype))


def _armijo(compiled: Compiled) -> Iterator[Finding]:
    if compiled.problem.manifolds:
        carry = begin(compiled.scheme, compiled.problem, compiled.start)
        trial = run_chunk(
            compiled.scheme, compiled.problem, carry, iterations=_TRIAL, sample_every=_TRIAL
        )
        yield armijo(trial.worst_violation)


def _flights(compiled: Compiled) -> Iterator[Finding]:
    if isinstance(compiled.scheme, HamiltonianDamped):
        yield from flights(compiled)


def _observed(compiled: Compiled, z: State) -> Iterator[Finding]:
    """Measure what was declared, in float64, with the operators that ran."""
    observables, wide = cast((compiled.observables, z), CERT_DTYPE)
    for equations in observables.physics:
        yield physics(float(equations.residual(wide)), equations.tolerance)
    for held in observables.holdouts:
        square, count = held.residual(wide)
        yield holdout(float(square), int(count), held.noise)


def _refined(compiled: Compiled, z: State, coarser: tuple[float, float]) -> Finding:
    stated = compiled.spec.certification
    return refinement(
        *coarser,
        energy_of(compiled, z),
        order=stated.refinement_order,
        tolerance=stated.refinement_tolerance,
    )


def _drifts(compiled: Compiled, carry: Carry) -> Iterator[Finding]:
    drifts = [
        Drift(one.name, float(one.reference), float(one.value(carry.z)), one.tolerance)
        for one in compiled.observables.invariants
    ]
    drifts += [
        Drift(f"{slot} on its manifold", 0.0, float(one.defect(carry.z[slot])), 1e-6)
        for slot, one in compiled.problem.manifolds
    ]
    if drifts:
        yield invariants(drifts, int(carry.iteration), compiled.spec.dtype)


def _feasible(compiled: Compiled, z: State) -> Iterator[Finding]:
    for slot, manifold in compiled.problem.manifolds:
        apart = float(manifold.defect(z[slot]))
        yield feasibility(apart, max(float(norm({slot: z[slot]})), 1.0))


def _duals(compiled: Compiled, carry: Carry) -> dict[int, jax.Array]:
    extra = carry.extra
    if not isinstance(extra, Duals):
        return {}
    return dict(zip(compiled.scheme.dual, extra.p, strict=True))  # type: ignore[attr-defined]


def _mapping(compiled: Compiled, z: State) -> tuple[float | None, float, float | None]:
    """Return |G| at z in float64, the bound that it is relative to, and E(z) - E(z+).

    Without a prox the first is None; the last is None also on a manifold.
    """
    problem = compiled.problem
    beta = float(problem.beta_up)
    if problem.manifolds:
        length = _riemannian(cast(problem, CERT_DTYPE), cast(z, CERT_DTYPE))
        scale = beta if math.isfinite(beta) and beta > 0 else 1.0
        return float(length), scale, None
    if not all(term.is_proximable or term.frame is None for term in compiled.energy.nonsmooth):
        return None, beta, None
    if len({term.variable for term in compiled.energy.nonsmooth}) < len(compiled.energy.nonsmooth):
        return None, beta, None
    alpha = jnp.asarray(1 / beta, CERT_DTYPE)
    wide: Problem = cast(replace(problem, scales=None, metric={}), CERT_DTYPE)
    wide = replace(wide, alpha=alpha)
    length, fall = _plain(wide, cast(z, CERT_DTYPE))
    return float(length), beta, float(fall)


@jax.jit
def _plain(problem: Problem, z: State) -> tuple[jax.Array, jax.Array]:
    # Not a step of the scheme: it may be refused, and then it has no length at all.
    carry = Proximal().init(problem, z)
    gradient = problem.energy.grad_at(carry.z, carry.images)
    still = jax.tree.map(jnp.zeros_like, (carry.z, carry.coefficients))
    move = forward_backward(problem, gradient, carry, *still)
    along = problem.energy.images(move.step)
    change, size = changed(problem, carry, move.step, along, move.coefficients)
    fall = jnp.maximum(-change, 0) + descent.TOLERANCE * U * size
    return norm(move.step) / problem.alpha, fall


@jax.jit
def _riemannian(problem: Problem, z: State) -> jax.Array:
    curved = dict(problem.manifolds)
    gradient = problem.energy.grad_f(z)
    return norm(
        {
            slot: curved[slot].proj_tangent(z[slot], x) if slot in curved else x
            for slot, x in gradient.items()
        }
    )
