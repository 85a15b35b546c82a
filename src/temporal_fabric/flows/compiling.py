"""From a specification to what runs: f, g, W, L_apply, and one compiled inner step."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from temporal_fabric.errors import Problem as Fault
from temporal_fabric.errors import RequestRejected
from temporal_fabric.flows.adjusting import resolved
from temporal_fabric.flows.building import Builder, entry_point
from temporal_fabric.flows.certificates.curvature import beta_up
from temporal_fabric.flows.certificates.hessian import hessians
from temporal_fabric.flows.data import DataFault
from temporal_fabric.flows.energy import QuadraticForm, SmoothTerm
from temporal_fabric.flows.losses import Squared
from temporal_fabric.flows.manifolds import Euclidean, Manifold, Product, Spd, Sphere, Stiefel
from temporal_fabric.flows.observables import Holdout, Invariant, Observables, Physics
from temporal_fabric.flows.operators import Identity
from temporal_fabric.flows.precision import unit_roundoff
from temporal_fabric.flows.scales import Scales
from temporal_fabric.flows.schemes.accelerated import Accelerated
from temporal_fabric.flows.schemes.contract import Problem
from temporal_fabric.flows.schemes.hamiltonian import HamiltonianDamped
from temporal_fabric.flows.schemes.preconditioned import Preconditioned
from temporal_fabric.flows.schemes.primal_dual import PrimalDual
from temporal_fabric.flows.schemes.proximal import Proximal
from temporal_fabric.flows.schemes.riemannian import Riemannian
from temporal_fabric.flows.sharding import Sharding, sharding_of
from temporal_fabric.flows.transforms import Transform

if TYPE_CHECKING:
    from jax import Array

    from temporal_fabric.flows.certificates.record import Finding
    from temporal_fabric.flows.energy import Energy, Smooth
    from temporal_fabric.flows.precision import F64
    from temporal_fabric.flows.schemes.contract import Scheme
    from temporal_fabric.flows.spec import FlowSpec
    from temporal_fabric.flows.states import State

__all__ = ["Compiled", "compile_flow"]

T = TypeVar("T")


@dataclass(frozen=True)
class Compiled:
    """An energy with its scheme and first state. Steps and chunks take it as it is."""

    spec: FlowSpec
    problem: Problem
    scheme: Scheme
    start: State
    observables: Observables
    beta: Finding
    """The bound of the curvature that the step was chosen by."""

    references: State = field(default_factory=dict[str, Any])
    """The truth of the slots where it is known."""

    sharding: Sharding | None = None
    """Where the arrays lie; None: on one device."""

    def placed(self, tree: T) -> T:
        """Return a pytree with its arrays where those of the flow lie."""
        return tree if self.sharding is None else self.sharding.placed(tree)

    @property
    def energy(self) -> Energy:
        """E = f + g."""
        return self.problem.energy

    @property
    def is_quadratic(self) -> bool:
        """Whether f is quadratic."""
        return all(_is_quadratic(term) for term in self.energy.smooth)

    @property
    def W(self) -> dict[str, Any]:  # noqa: N802 - the field's name
        """The lens of each slot's prox; the identity where it has none."""
        lenses: dict[str, Any] = {
            slot: Identity(tuple(x.shape), self.spec.dtype) for slot, x in self.start.items()
        }
        for term in self.energy.nonsmooth:
            if term.frame is not None:
                lenses[term.variable] = term.operator
        return lenses

    def f(self, state: State) -> Array:
        """Return the smooth energy."""
        return self.energy.f(state)

    def g(self, state: State) -> Array:
        """Return the nonsmooth energy."""
        return self.energy.g(state)

    def L_apply(self, direction: State) -> State:  # noqa: N802 - the field's name
        """Return the Hessian of f at the start, applied to a direction."""
        return self.energy.L_apply(self.start, direction)


def compile_flow(spec: FlowSpec, folder: Path | None = None) -> Compiled:
    """Return the flow of a specification, with a step that its scheme admits.

    Args:
        spec: Read and linted.
        folder: What the paths of its data are relative to; the working directory where unset.

    Raises:
        RequestRejected: with every term whose data does not fit, or a bound that is not known.
    """
    spec, sharding = resolved(spec), sharding_of(spec)
    builder = Builder(spec, folder or Path())
    try:
        _is_deterministic(spec)
        energy = builder.energy()
        curved = _manifolds(spec)
        start = _start(builder, dict(curved))
        bound = beta_up(hessians(energy, start), seed=spec.seed)
        beta = math.inf if bound.value is None else bound.value
        if not curved and not math.isfinite(beta):
            message = f"no bound of the curvature is known: {bound.found}; {bound.remedy}"
            raise DataFault("E_FLOW", "/terms", message)  # noqa: TRY301 - one place to translate
        scheme, problem = _planned(builder, energy, beta, curved)
        observables = _observables(builder, start)
        references = _references(builder)
    except DataFault as fault:
        raise RequestRejected([fault.problem]) from None
    made = Compiled(spec, problem, scheme, start, observables, bound, references, sharding)
    problem, start, observables = made.placed((problem, start, observables))
    return replace(made, problem=problem, start=start, observables=observables)


def _is_deterministic(spec: FlowSpec) -> None:
    flags = os.environ.get("XLA_FLAGS", "")
    fixed = "xla_gpu_deterministic_ops=true" in flags
    if spec.deterministic and jax.default_backend() == "gpu" and not fixed:
        message = "needs XLA_FLAGS=--xla_gpu_deterministic_ops=true before the process starts"
        raise RequestRejected([Fault("E_FLOW", "/deterministic", message)])


def _manifolds(spec: FlowSpec) -> tuple[tuple[str, Manifold], ...]:
    found: list[tuple[str, Manifold]] = []
    for name, slot in spec.state.items():
        if slot.manifold == "euclidean":
            continue
        manifold = _manifold(slot.manifold)
        found.append((name, Product(factor=manifold) if slot.product else manifold))
    return tuple(found)


def _manifold(name: str) -> Manifold:
    if name in ("so3", "se3"):
        # jaxlie takes half a second to import, and few flows turn.
        from temporal_fabric.flows.rigid_motions import SE3, SO3  # noqa: PLC0415

        return SO3() if name == "so3" else SE3()
    return {"sphere": Sphere(), "stiefel": Stiefel(), "spd": Spd()}[name]


def _start(builder: Builder, curved: dict[str, Manifold]) -> State:
    spec = builder.spec
    state: State = {}
    for number, (name, slot) in enumerate(spec.state.items()):
        shape = tuple(slot.shape)
        x = builder.array(slot.initial, shape, f"/state/{name}/initial")
        if slot.initial is None and name in curved:
            key = jax.random.fold_in(jax.random.key(spec.seed), number)
            x = jax.random.normal(key, shape, jnp.dtype(spec.dtype))
        state[name] = curved.get(name, Euclidean()).nearest(x)
    return state


def _references(builder: Builder) -> State:
    return {
        name: builder.array(slot.reference, tuple(slot.shape), f"/state/{name}/reference")
        for name, slot in builder.spec.state.items()
        if slot.reference is not None
    }


def _planned(
    builder: Builder, energy: Energy, beta: float, curved: tuple[tuple[str, Manifold], ...]
) -> tuple[Scheme, Problem]:
    """Return the scheme of a flow's family, and a problem with steps that it admits."""
    spec = builder.spec
    policy = spec.flow
    number = partial(jnp.asarray, dtype=spec.dtype)
    problem = Problem(
        energy=energy,
        alpha=number(1.0),
        beta_up=number(beta),
        sigma=number(1.0),
        friction=number(policy.friction or 0.1 * math.sqrt(beta)),
        metric={},
        scales=_scales(spec, energy),
        manifolds=curved,
    )
    scheme: Scheme
    convex = all(term.penalty.traits().convex for term in energy.nonsmooth)
    # Rounded to the flow's dtype, a step must not come out longer than its theorem allows.
    room = 1 - 8 * unit_roundoff(spec.dtype)
    share = (policy.step or (1.9 if convex else 0.95)) * room
    if curved:
        alpha = share / beta if math.isfinite(beta) and beta > 0 else 1.0
        scheme = Riemannian(measured=True)
    elif beta == 0:
        raise DataFault("E_FLOW", "/terms", "f is constant; add a smooth term that is not")
    elif policy.family == "accelerated":
        alpha, scheme = min(share, room) / beta, Accelerated(policy.restart)
    elif policy.family == "primal_dual":
        scheme, alpha, sigma = _primal_dual(energy, beta, policy.dual_step)
        problem = replace(problem, sigma=number(sigma))
    elif policy.family == "hamiltonian_damped":
        quadratic = all(_is_quadratic(term) for term in energy.smooth)
        alpha, scheme = math.sqrt(share / beta), HamiltonianDamped(quadratic)
    elif policy.family == "preconditioned":
        scheme, metric = _preconditioned(builder, energy, beta)
        alpha, problem = 1.0, replace(problem, metric=metric)
    else:
        alpha, scheme = share / beta, Proximal(convex)
    return scheme, replace(problem, alpha=number(alpha))


def _primal_dual(energy: Energy, beta: float, wanted: float | None) -> tuple[Scheme, float, float]:
    """Return which terms are primal and dual, tau, and sigma, with 1/tau - sigma |K|^2 > beta/2."""
    primal: dict[str, int] = {}
    for number, term in enumerate(energy.nonsmooth):
        if term.is_proximable:
            primal.setdefault(term.variable, number)
    dual = tuple(n for n in range(len(energy.nonsmooth)) if n not in primal.values())
    norms = [energy.nonsmooth[n].operator.facts().norm for n in dual]
    square = sum(norm**2 for norm in norms if norm is not None)
    sigma = wanted or (beta / (2 * square) if square > 0 else 1.0)
    tau = 0.99 / (0.5 * beta + sigma * square)
    return PrimalDual(tuple(sorted(primal.values())), dual), tau, sigma


def _preconditioned(
    builder: Builder, energy: Energy, beta: float
) -> tuple[Scheme, dict[int, Array]]:
    """Return a metric that is at least the Hessian: row sums of its matrix, or beta everywhere."""
    spec = builder.spec
    lensed = {term.variable: n for n, term in enumerate(energy.nonsmooth)}
    plain = tuple(slot for slot in spec.state if slot not in lensed)
    metric: dict[int, Array] = {}
    for slot, one in spec.state.items():
        term = energy.nonsmooth[lensed[slot]] if slot in lensed else None
        shape = tuple(one.shape) if term is None else term.operator.out_shape
        number = lensed[slot] if slot in lensed else -1 - plain.index(slot)
        flat = term is None or isinstance(term.operator, Identity)
        name = spec.flow.preconditioner or "jacobi"
        if name != "jacobi":
            found = np.asarray(builder.array(name, shape, "/flow/preconditioner"), dtype=np.float64)
        else:
            found = _row_sums(energy, slot, shape, beta) if flat else np.full(shape, beta)
        metric[number] = jnp.asarray(found, spec.dtype)
    return Preconditioned(plain), metric


def _is_quadratic(term: Smooth) -> bool:
    flat = isinstance(term, SmoothTerm) and isinstance(term.loss, Squared)
    return flat or isinstance(term, QuadraticForm)


def _row_sums(energy: Energy, slot: str, shape: tuple[int, ...], beta: float) -> F64:
    """Return sum_j |L_ij|, which is at least L as a diagonal, where every part has its matrix."""
    total: F64 = np.zeros(shape)
    for term in energy.smooth:
        if slot not in term.variables:
            continue
        if not isinstance(term, SmoothTerm):
            return np.full(shape, beta)
        facts, steepest = term.operators[slot].facts(), term.loss.curvature_bounds()[1]
        if steepest is None or (facts.matrix is None and facts.diagonal is None):
            return np.full(shape, beta)
        rows = np.zeros(shape)
        if facts.diagonal is not None:
            rows = facts.diagonal**2
        elif facts.matrix is not None:
            rows = np.abs(facts.matrix.T @ facts.matrix).sum(1).reshape(shape)
        total += float(term.weight) * steepest * rows
    least: F64 = np.maximum(total * (1 + 1e-12), 1e-12 * beta)
    return least


def _scales(spec: FlowSpec, energy: Energy) -> Scales | None:
    schedule = spec.multiscale
    if schedule is None:
        return None
    for number, term in enumerate(energy.nonsmooth):
        lens = term.operator
        levels = lens.levels_of() if isinstance(lens, Transform) else None
        if levels is not None:
            last = int(levels.max())
            first = max(0, last - (schedule.levels or last))
            return Scales(
                jnp.asarray(levels.astype(np.int32)),
                jnp.asarray(schedule.tau, spec.dtype),
                jnp.asarray(schedule.every, jnp.int32),
                number,
                schedule.mode,
                first,
                last,
            )
    return None


def _observables(builder: Builder, start: State) -> Observables:
    spec = builder.spec
    found: list[Invariant] = []
    zero = jnp.zeros((), spec.dtype)
    for slot, one in spec.state.items():
        for name, declared in one.invariants.items():
            place = f"/state/{slot}/invariants/{name}"
            own = declared.entry_point
            function = None if own is None else entry_point(own, place)
            invariant = Invariant(zero, name, slot, declared.kind, declared.tolerance, function)
            found.append(replace(invariant, reference=invariant.value(start)))
    equations: list[Physics] = []
    for name, stated in spec.physics.items():
        operator = builder.operator(stated.operator, tuple(start[stated.variable].shape))
        target = builder.array(stated.target, operator.out_shape, f"/physics/{name}/target")
        equations.append(Physics({stated.variable: operator}, target, stated.tolerance))
    held = tuple(_holdout(builder, start, name) for name in spec.holdout)
    return Observables(tuple(found), tuple(equations), held)


def _holdout(builder: Builder, start: State, name: str) -> Holdout:
    stated = builder.spec.holdout[name]
    operator = builder.operator(stated.operator, tuple(start[stated.variable].shape))
    target = builder.array(stated.target, operator.out_shape, f"/holdout/{name}/target")
    entries = jnp.ones_like(target)
    if stated.entries is not None:
        marked = builder.array(stated.entries, operator.out_shape, f"/holdout/{name}/entries")
        entries = (marked != 0).astype(target.dtype)
    if not bool(jnp.any(entries != 0)):
        raise DataFault("E_FLOW", f"/holdout/{name}/entries", "holds nothing out; mark some with 1")
    return Holdout(operator, target, entries, stated.variable, stated.noise)
