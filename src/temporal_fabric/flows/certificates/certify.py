"""All that is found about an energy and its steps before the first of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from temporal_fabric.flows.certificates import metric, steps
from temporal_fabric.flows.certificates.adjoint import adjoint
from temporal_fabric.flows.certificates.convexity import gamma_est, gamma_low
from temporal_fabric.flows.certificates.curvature import beta_up
from temporal_fabric.flows.certificates.dominance import eta_dd, row_sums
from temporal_fabric.flows.certificates.existence import existence
from temporal_fabric.flows.certificates.frame import transform
from temporal_fabric.flows.certificates.hessian import hessians
from temporal_fabric.flows.certificates.observed import finite
from temporal_fabric.flows.certificates.profiles import Scheme
from temporal_fabric.flows.energy import SmoothTerm
from temporal_fabric.flows.operators import Identity
from temporal_fabric.flows.precision import CERT_DTYPE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from jax import Array

    from temporal_fabric.flows.certificates.hessian import Hessian
    from temporal_fabric.flows.certificates.record import Finding
    from temporal_fabric.flows.energy import Energy, State
    from temporal_fabric.flows.operators import Operator

__all__ = ["Plan", "certify"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The steps that a flow is about to take."""

    scheme: Scheme
    alpha: float
    """Step; tau of a primal-dual scheme, dt of a Hamiltonian one."""

    sigma: float = 0.0
    """Dual step of a primal-dual scheme."""

    momentum: float = 1.0
    """Largest m_k of an accelerated scheme."""

    metric: Array | None = None
    """p > 0 for each coefficient, of a preconditioned scheme; the step is taken up in it."""

    prox: Callable[[Array], Array] | None = None
    """What a preconditioned scheme applies to the coefficients."""

    compact: frozenset[str] = frozenset()
    """Slots on a compact manifold."""

    gradient: float | None = None
    """A proved bound of |grad f| on the manifold; with ``curved``, for the step along it."""

    curved: bool = False
    """Whether some slot lives on a manifold."""


def certify(
    energy: Energy, state: State, plan: Plan, *, seed: int, dtype: str = CERT_DTYPE
) -> tuple[Finding, ...]:
    """Return the findings before a run, in the order in which a table shows them.

    The lint's own finding is not among them.

    Args:
        energy: f + g.
        state: The start; shapes and finiteness matter, and where L is taken if f is not quadratic.
        plan: The steps.
        seed: Of every probe; recorded with the findings' run, so that they can be made again.
        dtype: Of the flow.
    """
    blocks = hessians(energy, state)
    lenses = {slot: lens_of(energy, slot, state) for slot in state}
    beta = beta_up(blocks, seed=seed)
    problem = _Problem(energy, blocks, lenses, beta, seed)
    rows = {block.name: row_sums(block, lenses[block.name]) for block in problem.separate}
    gamma = gamma_low(blocks, rows=rows, seed=seed)
    return (
        finite((energy.smooth, state), "problem"),
        *_adjoints(energy, seed, dtype),
        *(transform(lens, plan.scheme, seed=seed) for lens in lenses.values()),
        beta,
        *_lengths(problem, plan, gamma),
        *(eta_dd(one, lenses[one.name], rows[one.name]) for one in problem.separate),
        gamma,
        gamma_est(blocks, seed=seed),
        existence(energy, state, gamma, compact=plan.compact),
    )


@dataclass(frozen=True)
class _Problem:
    """What several findings are made of."""

    energy: Energy
    blocks: tuple[Hessian, ...]
    lenses: Mapping[str, Operator]
    beta: Finding
    seed: int

    @property
    def separate(self) -> tuple[Hessian, ...]:
        """The blocks of a single slot: of coupled slots no row sums are known."""
        return tuple(block for block in self.blocks if block.name in self.lenses)


def lens_of(energy: Energy, slot: str, state: State) -> Operator:
    """Return the W of a slot's prox: its one transform, or the identity."""
    for term in energy.nonsmooth:
        if term.variable == slot and term.frame is not None:
            return term.operator
    return Identity(tuple(state[slot].shape), CERT_DTYPE)


def _adjoints(energy: Energy, seed: int, dtype: str) -> Iterator[Finding]:
    number = seed
    for term in energy.smooth:
        if isinstance(term, SmoothTerm):
            for slot, operator in term.operators.items():
                number += 1
                yield adjoint(operator, f"{term.name} on {slot}", seed=number, dtype=dtype)
    for penalty in energy.nonsmooth:
        number += 1
        yield adjoint(penalty.operator, penalty.name, seed=number, dtype=dtype)


def _lengths(problem: _Problem, plan: Plan, gamma: Finding) -> Iterator[Finding]:
    beta = problem.beta
    if plan.curved:
        yield steps.manifold_step(plan.alpha, beta, gradient=plan.gradient)
    elif plan.scheme is Scheme.PRIMAL_DUAL:
        norm = _joint_norm(problem.energy)
        yield steps.primal_dual_step(plan.alpha, plan.sigma, norm, beta)
    elif plan.scheme is Scheme.PRECONDITIONED:
        yield from _preconditioned(problem, plan)
    elif plan.scheme is Scheme.HAMILTONIAN_DAMPED:
        yield steps.symplectic_step(plan.alpha, beta)
    else:
        yield steps.step(plan.alpha, beta)
        if plan.scheme is Scheme.ACCELERATED:
            yield steps.momentum(plan.momentum, plan.alpha, gamma)


def _joint_norm(energy: Energy) -> float | None:
    """Return a bound of |K| for all nonsmooth terms stacked: |K|^2 <= sum |K_j|^2."""
    norms = [term.operator.facts().norm for term in energy.nonsmooth]
    known = [norm for norm in norms if norm is not None]
    return math.sqrt(sum(norm**2 for norm in known)) if len(known) == len(norms) else None


def _preconditioned(problem: _Problem, plan: Plan) -> Iterator[Finding]:
    (block,) = problem.blocks
    lens = problem.lenses[block.name]
    if plan.metric is None or plan.prox is None:
        raise ValueError(
            "a preconditioned scheme needs its metric and its prox [scheme=preconditioned];"
            " give both in the plan"
        )
    yield metric.preconditioner(block, lens, plan.metric, problem.beta, seed=problem.seed)
    for term in problem.energy.nonsmooth:
        yield metric.prox_metric(term, plan.metric, plan.prox, seed=problem.seed)
