"""Manifolds as adapters: exp, log, metric, proj_tangent, retract, transport, one a class.

Points are arrays in the ambient space of their slot. ``log`` inverts ``exp`` where a closed form
is at hand; on the Stiefel manifold it inverts ``retract``, which agrees to second order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import jax
import jax.numpy as jnp
from jax.scipy.linalg import expm

if TYPE_CHECKING:
    from collections.abc import Callable

    from jax import Array

__all__ = ["Euclidean", "Manifold", "Product", "Spd", "Sphere", "Stiefel"]


class Manifold(Protocol):
    """A Riemannian manifold in an ambient space of arrays. Instances are frozen and hashable."""

    @property
    def compact(self) -> bool:
        """Whether every continuous energy has a minimiser on it."""
        ...

    def exp(self, x: Array, v: Array) -> Array:
        """Return the end of the geodesic from x with velocity v."""
        ...

    def log(self, x: Array, y: Array) -> Array:
        """Return the velocity at x of the geodesic that ends in y, for y near x."""
        ...

    def metric(self, x: Array, u: Array, v: Array) -> Array:
        """Return the inner product of two tangent vectors at x."""
        ...

    def proj_tangent(self, x: Array, v: Array) -> Array:
        """Return the Riemannian gradient at x of a function with Euclidean gradient v.

        On a submanifold with the ambient metric this is the orthogonal projection.
        """
        ...

    def retract(self, x: Array, v: Array) -> Array:
        """Return a point on the manifold that agrees with exp to first order."""
        ...

    def transport(self, x: Array, y: Array, v: Array) -> Array:
        """Return a tangent vector at x, carried to y."""
        ...

    def nearest(self, x: Array) -> Array:
        """Return a point of the manifold near an ambient one."""
        ...

    def defect(self, x: Array) -> Array:
        """Return how far x is from the manifold."""
        ...


@dataclass(frozen=True)
class Euclidean:
    """Flat space."""

    compact: bool = False

    def exp(self, x: Array, v: Array) -> Array:
        """Return x + v."""
        return x + v

    def log(self, x: Array, y: Array) -> Array:
        """Return y - x."""
        return y - x

    def metric(self, x: Array, u: Array, v: Array) -> Array:
        """Return <u, v>."""
        del x
        return jnp.sum(u * v)

    def proj_tangent(self, x: Array, v: Array) -> Array:
        """Return v."""
        del x
        return v

    def retract(self, x: Array, v: Array) -> Array:
        """Return x + v."""
        return x + v

    def transport(self, x: Array, y: Array, v: Array) -> Array:
        """Return v."""
        del x, y
        return v

    def nearest(self, x: Array) -> Array:
        """Return x."""
        return x

    def defect(self, x: Array) -> Array:
        """Return 0."""
        return jnp.zeros((), x.dtype)


@dataclass(frozen=True)
class Sphere(Euclidean):
    """Arrays of norm 1, with the ambient metric."""

    compact: bool = True

    def exp(self, x: Array, v: Array) -> Array:
        """Return cos|v| x + sin|v| v/|v|."""
        length = _length(v)
        return jnp.cos(length) * x + _sinc(length) * v

    def log(self, x: Array, y: Array) -> Array:
        """Return the tangent part of y, as long as the angle between the two."""
        across = self.proj_tangent(x, y)
        sine, cosine = _length(across), jnp.sum(x * y)
        angle = jnp.arctan2(sine, cosine)
        return jnp.where(sine > 0, angle / jnp.where(sine > 0, sine, 1), 1) * across

    def proj_tangent(self, x: Array, v: Array) -> Array:
        """Return v - <x, v> x."""
        inner: Array = jnp.sum(x * v)
        return v - inner * x

    def retract(self, x: Array, v: Array) -> Array:
        """Return (x + v) / |x + v|."""
        return self.nearest(x + v)

    def transport(self, x: Array, y: Array, v: Array) -> Array:
        """Return v, carried along the geodesic."""
        along = x + y
        return v - jnp.sum(y * v) / (1 + jnp.sum(x * y)) * along

    def nearest(self, x: Array) -> Array:
        """Return x / |x|."""
        return x / _length(x)

    def defect(self, x: Array) -> Array:
        """Return | |x| - 1 |."""
        return jnp.abs(_length(x) - 1)


@dataclass(frozen=True)
class Stiefel(Euclidean):
    """Matrices of n x p with orthonormal columns, with the ambient metric."""

    compact: bool = True

    def exp(self, x: Array, v: Array) -> Array:
        """Return the geodesic's end (Edelman, Arias, Smith, 1998, section 2.2.2)."""
        p = x.shape[-1]
        a, s = x.T @ v, v.T @ v
        upper = jnp.concatenate([a, -s], 1)
        lower = jnp.concatenate([jnp.eye(p, dtype=x.dtype), a], 1)
        flow = expm(jnp.concatenate([upper, lower]))
        end: Array = jnp.concatenate([x, v], 1) @ flow[:, :p] @ expm(-a)
        return end

    def log(self, x: Array, y: Array) -> Array:
        """Return v with ``retract(x, v)`` = y: y s - x, with s from x'y s + s y'x = 2 I."""
        p = x.shape[-1]
        m, eye = x.T @ y, jnp.eye(p, dtype=x.dtype)
        system = jnp.kron(m, eye) + jnp.kron(eye, m)
        s = jnp.linalg.solve(system, 2 * eye.reshape(-1)).reshape(p, p)
        way: Array = y @ (0.5 * (s + s.T)) - x
        return way

    def proj_tangent(self, x: Array, v: Array) -> Array:
        """Return v - x sym(x'v)."""
        inner = x.T @ v
        return v - x @ (0.5 * (inner + inner.T))

    def retract(self, x: Array, v: Array) -> Array:
        """Return the polar factor of x + v, a retraction of second order."""
        return self.nearest(x + v)

    def transport(self, x: Array, y: Array, v: Array) -> Array:
        """Return v projected to the tangent space at y."""
        del x
        return self.proj_tangent(y, v)

    def nearest(self, x: Array) -> Array:
        """Return the polar factor."""
        u, _, vt = jnp.linalg.svd(x, full_matrices=False)
        return u @ vt

    def defect(self, x: Array) -> Array:
        """Return |x'x - I|."""
        return _length(x.T @ x - jnp.eye(x.shape[-1], dtype=x.dtype))


@dataclass(frozen=True)
class Spd(Euclidean):
    """Symmetric positive definite matrices, with the affine-invariant metric.

    Pennec, Fillard, Ayache, Int. J. Comput. Vis. 66, 2006, section 3.
    """

    def exp(self, x: Array, v: Array) -> Array:
        """Return the geodesic's end, r e^(r^-1 v r^-1) r with r = x^1/2."""
        root, inverse = _roots(x)
        flow: Array = root @ _spectral(inverse @ v @ inverse, jnp.exp) @ root
        return flow

    def log(self, x: Array, y: Array) -> Array:
        """Return the velocity, r ln(r^-1 y r^-1) r with r = x^1/2."""
        root, inverse = _roots(x)
        way: Array = root @ _spectral(inverse @ y @ inverse, jnp.log) @ root
        return way

    def metric(self, x: Array, u: Array, v: Array) -> Array:
        """Return trace(x^-1 u x^-1 v)."""
        return jnp.trace(jnp.linalg.solve(x, u) @ jnp.linalg.solve(x, v))

    def proj_tangent(self, x: Array, v: Array) -> Array:
        """Return x sym(v) x, the gradient in this metric."""
        return x @ _symmetric(v) @ x

    def retract(self, x: Array, v: Array) -> Array:
        """Return exp, which is always inside."""
        return self.exp(x, v)

    def transport(self, x: Array, y: Array, v: Array) -> Array:
        """Return e v e' with e = (y x^-1)^1/2, along the geodesic."""
        root, inverse = _roots(x)
        e = root @ _spectral(inverse @ y @ inverse, jnp.sqrt) @ inverse
        return e @ v @ e.T

    def nearest(self, x: Array) -> Array:
        """Return the symmetric part with eigenvalues of at least 1e-8 of the largest."""
        return _spectral(_symmetric(x), lambda w: jnp.maximum(w, 1e-8 * jnp.max(jnp.abs(w))))

    def defect(self, x: Array) -> Array:
        """Return the skew part and what the least eigenvalue lacks to be positive."""
        least = jnp.linalg.eigvalsh(_symmetric(x))[0]
        return _length(x - x.T) + jnp.maximum(-least, 0)


@dataclass(frozen=True)
class Product(Euclidean):
    """Copies of one manifold along the first axis of an array."""

    factor: Manifold = Sphere()

    def exp(self, x: Array, v: Array) -> Array:
        """Return exp of each factor."""
        return jax.vmap(self.factor.exp)(x, v)

    def log(self, x: Array, y: Array) -> Array:
        """Return log of each factor."""
        return jax.vmap(self.factor.log)(x, y)

    def metric(self, x: Array, u: Array, v: Array) -> Array:
        """Return the sum over the factors."""
        return jnp.sum(jax.vmap(self.factor.metric)(x, u, v))

    def proj_tangent(self, x: Array, v: Array) -> Array:
        """Return the gradient in each factor."""
        return jax.vmap(self.factor.proj_tangent)(x, v)

    def retract(self, x: Array, v: Array) -> Array:
        """Return the retraction of each factor."""
        return jax.vmap(self.factor.retract)(x, v)

    def transport(self, x: Array, y: Array, v: Array) -> Array:
        """Return the transport of each factor."""
        return jax.vmap(self.factor.transport)(x, y, v)

    def nearest(self, x: Array) -> Array:
        """Return the nearest points of each factor."""
        return jax.vmap(self.factor.nearest)(x)

    def defect(self, x: Array) -> Array:
        """Return the largest defect."""
        return jnp.max(jax.vmap(self.factor.defect)(x))


def _length(v: Array) -> Array:
    return jnp.sqrt(jnp.sum(v**2))


def _sinc(x: Array) -> Array:
    return jnp.where(x > 0, jnp.sin(x) / jnp.where(x > 0, x, 1), 1)


def _symmetric(x: Array) -> Array:
    return 0.5 * (x + x.T)


def _spectral(x: Array, function: Callable[[Array], Array]) -> Array:
    w, q = jnp.linalg.eigh(_symmetric(x))
    made: Array = (q * function(w)[None]) @ q.T
    return made


def _roots(x: Array) -> tuple[Array, Array]:
    w, q = jnp.linalg.eigh(x)
    root = jnp.sqrt(w)[None]
    return (q * root) @ q.T, (q / root) @ q.T
