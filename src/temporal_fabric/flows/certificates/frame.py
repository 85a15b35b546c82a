"""The class of a transform, by its defect.

The step W, prox, W' is the prox of g o W only for W W' = c I (Combettes and Pesquet, SIAM J.
Optim. 18, 2007, Prop. 11). A random probe of the energy does not see one lost coefficient among
65,536; power steps on the defect W W' - c I grow it until it is all that is left.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, cast

import jax
import jax.numpy as jnp

from temporal_fabric.flows.certificates.krylov import gaussian, power_norm
from temporal_fabric.flows.certificates.profiles import Scheme
from temporal_fabric.flows.certificates.record import Finding, Kind
from temporal_fabric.flows.operators import Identity, backward, forward
from temporal_fabric.flows.precision import CERT_DTYPE
from temporal_fabric.flows.precision import cast as in_dtype

if TYPE_CHECKING:
    from collections.abc import Callable

    from jax import Array

    from temporal_fabric.flows.operators import Operator
    from temporal_fabric.flows.transforms import Transform

__all__ = ["STEPS", "transform"]

STEPS = 10
"""Power steps on each defect."""

_PROXIMAL = frozenset({Scheme.PROXIMAL, Scheme.ACCELERATED, Scheme.PRECONDITIONED})


def transform(lens: Operator, scheme: Scheme, *, seed: int, delta: float = 1e-6) -> Finding:
    """Return by how much a transform misses what its class says, relative to its constant.

    Args:
        lens: A transform with a declared frame, or the identity.
        scheme: Proximal steps need W W' = c I.
        seed: Of the probes.
        delta: Probability with which the defect is larger than the value.
    """
    if isinstance(lens, Identity):
        return Finding(
            name="transform",
            value=0.0,
            kind=Kind.RIGOROUS,
            method="identity",
            found="there is no transform: W is the identity",
        )
    declared = cast("Transform", in_dtype(lens, CERT_DTYPE))
    name, frame = type(lens).__name__, declared.frame
    if scheme in _PROXIMAL and frame not in ("orthonormal", "co_isometry"):
        return Finding(
            name="transform",
            value=math.inf,
            kind=Kind.RIGOROUS,
            method="declared class",
            found=f"{name} is {frame}, so W, prox, W' is not the prox of g o W",
            meaning="The flow would end at the minimiser of another energy",
            remedy="Use `primal_dual`, or the synthesis form with the coefficients as state",
        )
    defects = _defects(declared, seed, delta / 3)
    part, value = max(defects.items(), key=lambda one: math.inf if math.isnan(one[1]) else one[1])
    return Finding(
        name="transform",
        value=value,
        kind=Kind.PROBABLE,
        delta=delta,
        method=f"{STEPS} power steps on {', '.join(defects)}",
        found=f"{name} misses its class ({frame}) by {value:.2g} in |{part}|",
        meaning="The step is not the prox of g o W, or coefficients are lost",
        remedy="Mend the transform, or declare the class that it has",
    )


def _defects(lens: Transform, seed: int, delta: float) -> dict[str, float]:
    """Return probable bounds of the norms that have to be zero, each relative to c."""
    c = lens.frame_constant
    takes = jax.ShapeDtypeStruct(lens.in_shape, jnp.dtype(CERT_DTYPE))
    is_real = not jnp.issubdtype(jax.eval_shape(lens.matvec, takes).dtype, jnp.complexfloating)
    found: dict[str, float] = {}

    def bounded(defect: Callable[[Array], Array], shape: tuple[int, ...]) -> float:
        return power_norm(defect, shape, steps=STEPS, seed=seed, delta=delta)[1]

    def analysis(x: Array) -> Array:
        image: Array = _from(backward(lens, forward(lens, x)), c, x)
        return image

    def synthesis(u: Array) -> Array:
        image: Array = _from(forward(lens, backward(lens, u)), c, u)
        return image

    if lens.frame == "orthonormal":
        found["W'W - c I"] = bounded(analysis, lens.in_shape) / c
    if lens.frame in ("orthonormal", "co_isometry") and is_real:
        found["W W' - c I"] = bounded(synthesis, lens.out_shape) / c
    if lens.frame in ("biorthogonal", "redundant"):
        # Not symmetric: D'D is, and the root of its norm is that of D.
        found["W^-1 W - I"] = math.sqrt(bounded(partial(_inverse_defect, lens), lens.in_shape))
    elif lens.frame == "orthonormal":
        # The step uses W' alone; the inverse is looked at once.
        x = gaussian(seed + 1, lens.in_shape)
        found["W^-1 W x - x"] = float(_apart(_inverse(lens, forward(lens, x)), x))
    return found


@jax.jit
def _from(image: Array, c: float, x: Array) -> Array:
    return image - c * x


@jax.jit
def _apart(y: Array, x: Array) -> Array:
    apart: Array = jnp.linalg.norm((y - x).reshape(-1)) / jnp.linalg.norm(x.reshape(-1))
    return apart


@jax.jit
def _inverse(lens: Transform, u: Array) -> Array:
    return lens.inverse(u)


@jax.jit
def _inverse_defect(lens: Transform, x: Array) -> Array:
    def defect(v: Array) -> Array:
        return lens.inverse(lens.matvec(v)) - v

    transpose = jax.linear_transpose(defect, x)
    return cast("Array", transpose(defect(x))[0])
