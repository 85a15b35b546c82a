"""FISTA with restart, checked by its potential.

E alone rises along momentum steps; V_k = E(z_k) + |z_k - z_{k-1}|^2 / (2 alpha) does not, for
alpha beta_up <= 1 and momentum in [0, 1] (Chambolle and Dossal, J. Optim. Theory Appl. 166, 2015).
Restarts: by the gradient test of O'Donoghue and Candes (Found. Comput. Math. 15, 2015, eq. 12), or
by value, which is monotone FISTA up to one idle step (Beck and Teboulle, IEEE TIP 18, 2009).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp

from temporal_fabric.flows.certificates import descent
from temporal_fabric.flows.schemes.contract import (
    Carry,
    Check,
    Problem,
    changed,
    judged,
    refreshed,
    rejected,
    started,
)
from temporal_fabric.flows.schemes.proximal import forward_backward, landed
from temporal_fabric.flows.states import add, chosen, combined, dot, norm

if TYPE_CHECKING:
    from typing import Any

    from jax import Array

    from temporal_fabric.flows.states import State

__all__ = ["Accelerated", "Momentum"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Momentum:
    """What momentum remembers."""

    step: State
    """z_k - z_{k-1}, as it was taken."""

    images: tuple[Any, ...]
    """Of ``step``."""

    coefficients: tuple[Array, ...]
    """Of ``step``."""

    t: Array
    before: Array
    """|z_k - z_{k-1}|^2"""


@dataclass(frozen=True)
class Accelerated:
    """FISTA (Beck and Teboulle, SIAM J. Imaging Sci. 2, 2009) with restart."""

    restart: Literal["gradient", "value", "none"] = "gradient"
    cap: float = 1.0
    """Largest momentum: 1 for convex f; (1 + alpha l)^-1/2 where f + l|.|^2/2 is convex."""

    def init(self, problem: Problem, z: State) -> Carry:
        """Return the first carry, without momentum."""
        carry = started(problem, z, None)
        return replace(carry, extra=_still(carry))

    def refresh(self, problem: Problem, carry: Carry) -> Carry:
        """Return the carry with the images of z and of its last step computed afresh."""
        past: Momentum = carry.extra
        images, coefficients = problem.energy.images, problem.energy.coefficients
        past = replace(past, images=images(past.step), coefficients=coefficients(past.step))
        return replace(refreshed(problem, carry), extra=past)

    def step(self, problem: Problem, carry: Carry) -> tuple[Carry, Check]:
        """Take one step with momentum and check the potential."""
        energy = problem.energy
        past: Momentum = carry.extra
        t = 0.5 * (1 + jnp.sqrt(1 + 4 * past.t**2))
        momentum = jnp.minimum((past.t - 1) / t, self.cap)
        y_images = combined(carry.images, momentum, past.images)
        lead, leads = jax.tree.map(lambda x: momentum * x, (past.step, past.coefficients))
        gradient = energy.grad_at(carry.z, y_images)
        d, coefficients, active = forward_backward(problem, gradient, carry, lead, leads)
        from_y = combined(d, -1, lead)
        along = energy.images(d)
        square, square_y = dot(d, d), dot(from_y, from_y)
        bend = energy.bend_at(d, y_images, combined(along, -momentum, past.images))
        curvature = descent.curvature_ratio(bend, square_y, norm(carry.z), carry.beta)
        change, size = changed(problem, carry, d, along, coefficients)
        violation = descent.potential(
            change, size, square, before=past.before, alpha=carry.alpha, momentum=momentum
        )
        slack = descent.TOLERANCE * jnp.asarray(jnp.finfo(size.dtype).eps, size.dtype) * size
        rose = (change > slack) & (momentum > 0) & (self.restart == "value")
        turned = (dot(from_y, d) < 0) & (self.restart == "gradient")
        drops = turned | (active != carry.active)
        moves = combined(coefficients, -1, carry.coefficients)
        following = Momentum(d, along, moves, jnp.where(drops, 1, t), square)
        after = replace(
            carry,
            z=landed(problem, add(carry.z, d), coefficients),
            images=combined(carry.images, 1, along),
            coefficients=coefficients,
            gradient=gradient,
            square=square_y,
            active=active,
            iteration=carry.iteration + 1,
            extra=following,
        )
        return self._decided(carry, after, Check(violation, curvature, rose, drops))

    def _decided(self, before: Carry, after: Carry, found: Check) -> tuple[Carry, Check]:
        """Keep z where E rose or the curvature was too large, and then drop the momentum."""
        too_curved, rose = found.curvature > 1, found.rejected
        stopped = replace(before, extra=_still(before))
        waited = chosen(rose, replace(stopped, iteration=after.iteration), after)
        carry = rejected(too_curved, stopped, waited)
        stays = too_curved | rose
        check = Check(
            jnp.where(stays, 0, judged(found.violation, after.square, norm(before.z))),
            found.curvature,
            too_curved.astype(jnp.int32),
            (found.restarted | stays).astype(jnp.int32),
        )
        return carry, check


def _still(carry: Carry) -> Momentum:
    step, images, coefficients = jax.tree.map(
        jnp.zeros_like, (carry.z, carry.images, carry.coefficients)
    )
    one = jnp.ones_like(carry.alpha)
    return Momentum(step, images, coefficients, one, jnp.zeros_like(one))
