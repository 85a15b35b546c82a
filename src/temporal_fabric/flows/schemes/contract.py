"""What a scheme is: an opaque carry, a start and a step; outcomes are data.

A scheme descends an energy. Its step is pure and runs inside one compiled loop; it never raises,
never calls the host, and rejects itself where its own certificate fails: the state stays, the
step is halved, and the row says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from temporal_fabric.flows.certificates import descent
from temporal_fabric.flows.operators import static
from temporal_fabric.flows.precision import unit_roundoff
from temporal_fabric.flows.states import State, chosen, norm

if TYPE_CHECKING:
    from jax import Array

    from temporal_fabric.flows.energy import Energy
    from temporal_fabric.flows.manifolds import Manifold
    from temporal_fabric.flows.scales import Scales

__all__ = [
    "Carry",
    "Check",
    "Problem",
    "Scheme",
    "begin",
    "changed",
    "decided",
    "judged",
    "noise",
    "refreshed",
    "rejected",
    "started",
]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Problem:
    """An energy and the numbers of its steps; to change a number compiles nothing."""

    energy: Energy
    alpha: Array
    """The first step: alpha, tau of primal_dual, dt of hamiltonian_damped."""

    beta_up: Array
    """A proved bound of the curvature of f; infinite where none is known."""

    sigma: Array
    """Dual step of primal_dual."""

    friction: Array
    """c of hamiltonian_damped: momentum falls by exp(-c dt) each step."""

    metric: dict[int, Array]
    """p > 0 for each coefficient, by number of the nonsmooth term; -1, -2: slots without."""

    scales: Scales | None
    """Which coefficients may move, by their scale; None: all."""

    manifolds: tuple[tuple[str, Manifold], ...] = static(default=())
    """The slots that are not flat."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Carry:
    """What goes from one step to the next. Saving and restoring it resumes bit for bit."""

    z: State
    images: tuple[Any, ...]
    """What each smooth term sees of z."""

    coefficients: tuple[Array, ...]
    """K z of each nonsmooth term."""

    gradient: State
    """Of f, at the point that the last step started from."""

    alpha: Array
    beta: Array
    """What curvature is checked against: beta_up, doubled each time alpha is halved."""

    square: Array
    """|d|^2 of the last step, in the metric of the scheme."""

    active: Array
    """The finest scale that may move; of no meaning without scales."""

    iteration: Array
    extra: Any
    """The scheme's own."""


class Check(NamedTuple):
    """What a step found out about itself."""

    violation: Array
    """Of the scheme's inequality, in units of rounding: at most 1 means that it holds."""

    curvature: Array
    """beta_k / beta: at most 1, or the step was rejected."""

    rejected: Array
    """1 where the state stayed and alpha was halved, else 0."""

    restarted: Array
    """1 where momentum was dropped, else 0."""


class Scheme(Protocol):
    """A way to descend. Instances are frozen and hashable: they are static in compiled code."""

    def init(self, problem: Problem, z: State) -> Carry:
        """Return the first carry."""
        ...

    def refresh(self, problem: Problem, carry: Carry) -> Carry:
        """Return the carry with everything that is computed from z computed afresh.

        Images are updated step by step and drift by rounding. A chunk starts with this, so a run
        that was interrupted between chunks goes on with the same bits.
        """
        ...

    def step(self, problem: Problem, carry: Carry) -> tuple[Carry, Check]:
        """Return the carry after one step, and what the step found out."""
        ...


def begin(scheme: Scheme, problem: Problem, z: State) -> Carry:
    """Return the first carry at a state, by one program.

    ``scheme.init`` itself would be a program for every operation, and seconds of compiling.
    """
    carry: Carry = _begun(scheme, problem, z)
    return carry


@partial(jax.jit, static_argnums=0)
def _begun(scheme: Scheme, problem: Problem, z: State) -> Carry:
    return scheme.init(problem, z)


def started(problem: Problem, z: State, extra: Any) -> Carry:
    """Return a carry at a state, with nothing moved yet."""
    zero = jnp.zeros((), problem.alpha.dtype)
    first = 0 if problem.scales is None else problem.scales.first
    return Carry(
        z=z,
        images=problem.energy.images(z),
        coefficients=problem.energy.coefficients(z),
        gradient={slot: jnp.zeros_like(x) for slot, x in z.items()},
        alpha=problem.alpha,
        beta=problem.beta_up,
        square=zero,
        active=jnp.asarray(first, jnp.int32),
        iteration=jnp.zeros((), jnp.int32),
        extra=extra,
    )


def refreshed(problem: Problem, carry: Carry) -> Carry:
    """Return the carry with images and coefficients computed from z."""
    energy, z = problem.energy, carry.z
    return replace(carry, images=energy.images(z), coefficients=energy.coefficients(z))


def rejected(failed: Array, before: Carry, after: Carry) -> Carry:
    """Return the carry before a step that failed, with half its alpha, else the one after."""
    kept = replace(
        before, alpha=0.5 * before.alpha, beta=2 * before.beta, iteration=after.iteration
    )
    carry: Carry = chosen(failed, kept, after)
    return carry


def decided(
    before: Carry, after: Carry, violation: Array, curvature: Array, failed: Array | None = None
) -> tuple[Carry, Check]:
    """Return the carry of a step and its check; one with too much curvature did not happen.

    Args:
        before: The carry before the step.
        after: The carry after it.
        violation: Of its inequality.
        curvature: beta_k / beta.
        failed: Whether it is rejected, where another rule decides.
    """
    failed = curvature > 1 if failed is None else failed
    flag = failed.astype(jnp.int32)
    check = Check(jnp.where(failed, 0, violation), curvature, flag, jnp.zeros_like(flag))
    return rejected(failed, before, after), check


def judged(violation: Array, square: Array, length: Array) -> Array:
    """Return the violation of a step that is long enough to tell.

    Args:
        violation: Of its inequality.
        square: |d|^2.
        length: |z| in the same metric; d has the rounding of z in it. A step that is not a
            number is never too short to tell.
    """
    floor = descent.SMALLEST_STEP * unit_roundoff(str(length.dtype)) * length
    return jnp.where(square <= floor**2, 0, violation)


def changed(
    problem: Problem, carry: Carry, d: State, along: tuple[Any, ...], new: tuple[Array, ...]
) -> tuple[Array, Array]:
    """Return E(z + d) - E(z), and the size that its rounding is measured by.

    To the summands comes beta |z| |d|: a gradient is wrong by u beta |z|, and descent
    inequalities hold with equality where the penalty is linear along the step.

    Args:
        problem: The energy.
        carry: z, its images and coefficients.
        d: The step.
        along: Images of d.
        new: Coefficients of z + d.
    """
    energy = problem.energy
    change, size = energy.f_difference_at(d, carry.images, along)
    moves = tuple(v - u for u, v in zip(carry.coefficients, new, strict=True))
    change_g, size_g = energy.g_difference_at(d, carry.coefficients, moves)
    return change + change_g, size + size_g + noise(problem, carry, d)


def noise(problem: Problem, carry: Carry, d: State) -> Array:
    """Return beta |z| |d|, in units of roundoff what a gradient's rounding does along a step."""
    beta = jnp.where(jnp.isfinite(problem.beta_up), problem.beta_up, 0)
    return beta * norm(carry.z) * norm(d)
