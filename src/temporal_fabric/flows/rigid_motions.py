"""Rotations and rigid motions, with exp and log by jaxlie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax.numpy as jnp
import jaxlie

from temporal_fabric.flows.manifolds import Euclidean, Stiefel

if TYPE_CHECKING:
    from jax import Array

__all__ = ["SE3", "SO3"]


@dataclass(frozen=True)
class SO3(Euclidean):
    """Rotation matrices x, with the ambient metric; tangents are x times a skew matrix."""

    compact: bool = True

    def exp(self, x: Array, v: Array) -> Array:
        """Return x e^(x'v)."""
        turn: Array = jaxlie.SO3.exp(_axis(x.T @ v)).as_matrix()
        return x @ turn

    def log(self, x: Array, y: Array) -> Array:
        """Return x ln(x'y)."""
        return x @ _skew(jaxlie.SO3.from_matrix(x.T @ y).log())

    def proj_tangent(self, x: Array, v: Array) -> Array:
        """Return x skew(x'v)."""
        inner = x.T @ v
        return x @ (0.5 * (inner - inner.T))

    def retract(self, x: Array, v: Array) -> Array:
        """Return exp: it is as cheap as another retraction, and orthogonal again."""
        return self.nearest(self.exp(x, v))

    def transport(self, x: Array, y: Array, v: Array) -> Array:
        """Return y x'v: the same motion of the body."""
        return y @ x.T @ v

    def nearest(self, x: Array) -> Array:
        """Return the nearest rotation (Kabsch, 1976)."""
        u, _, vt = jnp.linalg.svd(x)
        flip = jnp.ones(3, x.dtype).at[2].set(jnp.sign(jnp.linalg.det(u @ vt)))
        return (u * flip[None]) @ vt

    def defect(self, x: Array) -> Array:
        """Return |x'x - I| and how far the determinant is from 1."""
        return Stiefel().defect(x) + jnp.abs(jnp.linalg.det(x) - 1)


@dataclass(frozen=True)
class SE3(Euclidean):
    """4 x 4 rigid motions, with the ambient metric of rotation and translation."""

    def exp(self, x: Array, v: Array) -> Array:
        """Return x e^(x^-1 v)."""
        body = jnp.linalg.solve(x, v)
        twist = jnp.concatenate([body[:3, 3], _axis(body[:3, :3])])
        motion: Array = jaxlie.SE3.exp(twist).as_matrix()
        return x @ motion

    def log(self, x: Array, y: Array) -> Array:
        """Return x ln(x^-1 y)."""
        twist = jaxlie.SE3.from_matrix(jnp.linalg.solve(x, y)).log()
        body = jnp.zeros_like(x).at[:3, :3].set(_skew(twist[3:])).at[:3, 3].set(twist[:3])
        return x @ body

    def proj_tangent(self, x: Array, v: Array) -> Array:
        """Return the rotation's projection and the translation as it is."""
        turn = SO3().proj_tangent(x[:3, :3], v[:3, :3])
        return jnp.zeros_like(x).at[:3, :3].set(turn).at[:3, 3].set(v[:3, 3])

    def retract(self, x: Array, v: Array) -> Array:
        """Return exp of the rotation, and the translation moved straight."""
        turned = SO3().retract(x[:3, :3], v[:3, :3])
        return x.at[:3, :3].set(turned).at[:3, 3].add(v[:3, 3])

    def transport(self, x: Array, y: Array, v: Array) -> Array:
        """Return the same turn of the body, and the same translation."""
        return v.at[:3, :3].set(y[:3, :3] @ x[:3, :3].T @ v[:3, :3])

    def nearest(self, x: Array) -> Array:
        """Return the nearest rotation with the translation as it is."""
        last = jnp.zeros(4, x.dtype).at[3].set(1)
        return x.at[:3, :3].set(SO3().nearest(x[:3, :3])).at[3].set(last)

    def defect(self, x: Array) -> Array:
        """Return the rotation's defect and that of the last row."""
        last = jnp.zeros(4, x.dtype).at[3].set(1)
        return SO3().defect(x[:3, :3]) + jnp.sum(jnp.abs(x[3] - last))


def _axis(skew: Array) -> Array:
    return jnp.stack([skew[2, 1], skew[0, 2], skew[1, 0]])


def _skew(axis: Array) -> Array:
    a, b, c = axis
    zero = jnp.zeros_like(a)
    rows = [jnp.stack(row) for row in ((zero, -c, b), (c, zero, -a), (-b, a, zero))]
    return jnp.stack(rows)
