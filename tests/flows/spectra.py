"""Random operators whose spectrum is known from a singular value decomposition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from temporal_fabric.flows.convolutions import SeparableConvolution, fourier_convolution
from temporal_fabric.flows.energy import Energy, QuadraticForm, SmoothTerm
from temporal_fabric.flows.losses import Squared
from temporal_fabric.flows.operators import Composition, Dense, Diagonal, Identity
from temporal_fabric.flows.own_operators import OwnOperator
from tests.flows.parts import matrix_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.random import Generator

    from temporal_fabric.flows.operators import Operator
    from temporal_fabric.flows.precision import F64

N = 64
"""Unknowns of the dense operators; one size, so that programs compile once."""

IMAGE = (12, 16)


@dataclass(frozen=True)
class Known:
    """An energy with the ends of its Hessian's spectrum."""

    kind: str
    energy: Energy
    state: dict[str, Any]
    least: float
    largest: float
    """Of |eigenvalue|."""


def one(value: float) -> Any:
    """Return a float64 scalar."""
    return jnp.asarray(value, "float64")


def least_squares(operator: Operator, mu: float = 0.0) -> Energy:
    """Return |A x|^2 / 2 + mu |x|^2 / 2."""
    fit = SmoothTerm(one(1.0), Squared(jnp.zeros(operator.out_shape)), {"x": operator}, name="fit")
    if mu == 0:
        return Energy((fit,), ())
    identity = Identity(operator.in_shape, "float64")
    tikhonov = SmoothTerm(
        one(mu), Squared(jnp.zeros(operator.in_shape)), {"x": identity}, name="tikhonov"
    )
    return Energy((fit, tikhonov), ())


def quadratic(operator: Operator) -> Energy:
    """Return x'Q x / 2."""
    linear = jnp.zeros(operator.in_shape)
    return Energy((QuadraticForm(one(1.0), operator, linear, variable="x"),), ())


def _known(kind: str, operator: Operator, mu: float) -> Known:
    values = np.linalg.svd(matrix_of(operator), compute_uv=False) ** 2
    wide = int(np.prod(operator.in_shape)) > int(np.prod(operator.out_shape))
    state = {"x": jnp.zeros(operator.in_shape)}
    least = (0.0 if wide else float(values[-1])) + mu
    return Known(kind, least_squares(operator, mu), state, least, float(values[0]) + mu)


def _rotation(rng: Generator) -> F64:
    q, r = np.linalg.qr(rng.normal(size=(N, N)))
    return q * np.sign(np.diag(r))


SPECTRA: dict[str, Callable[[Generator], F64]] = {
    "uniform": lambda rng: rng.uniform(0, 1, N),
    "log-uniform": lambda rng: 10 ** rng.uniform(-10, 0, N),
    "blur": lambda rng: np.exp(-(np.arange(N) ** 2) * rng.uniform(0.005, 0.05)),
    "outlier": lambda rng: np.append(rng.uniform(0.5, 1, N - 1), 1e-8),
    "clustered": lambda rng: np.repeat(rng.uniform(0.1, 1, 4), N // 4),
    "singular": lambda rng: np.append(rng.uniform(0.1, 1, N - 3), np.zeros(3)),
}


def _with_spectrum(rng: Generator, values: F64) -> F64:
    left, right = _rotation(rng), _rotation(rng)
    return (left * np.sqrt(values)) @ right


def _multiply(matrix: Any, x: Any) -> Any:
    return matrix @ x


def _multiply_transposed(matrix: Any, x: Any) -> Any:
    return matrix.T @ x


def hidden(matrix: F64) -> OwnOperator:
    """Return a matrix as a user's own function, about which nothing is known."""
    rows, columns = matrix.shape
    return OwnOperator(
        jnp.asarray(matrix), (columns,), (rows,), "float64", _multiply, _multiply_transposed
    )


def _dense(matrix: F64) -> Dense:
    return Dense(jnp.asarray(matrix), (matrix.shape[1],), (matrix.shape[0],))


def _taps(rng: Generator) -> Any:
    taps = rng.normal(size=5)
    return jnp.asarray(taps / np.abs(taps).sum())


def _indefinite(rng: Generator) -> Known:
    """Return a symmetric matrix with one eigenvalue at or slightly below zero."""
    values = np.append(rng.uniform(0.5, 2, N - 1), -(10 ** rng.uniform(-9, -1)))
    q = _rotation(rng)
    matrix = (q * values) @ q.T
    matrix = 0.5 * (matrix + matrix.T)
    state = {"x": jnp.zeros(N)}
    ends = np.linalg.eigvalsh(matrix)
    energy = quadratic(_dense(matrix))
    return Known("indefinite", energy, state, float(ends[0]), float(ends[-1]))


def draw(rng: Generator) -> Known:
    """Return a random operator of a random kind."""
    kind = str(
        rng.choice(
            ["dense", "hidden", "wide", "circular", "separable", "masked", "diagonal", "indefinite"]
        )
    )
    mu = float(rng.choice([0.0, 0.0, 1e-6, 1e-2]))
    name = str(rng.choice(list(SPECTRA)))
    if kind == "indefinite":
        return _indefinite(rng)
    if kind in {"dense", "hidden"}:
        matrix = _with_spectrum(rng, SPECTRA[name](rng))
        operator: Operator = _dense(matrix) if kind == "dense" else hidden(matrix)
        return _known(f"{kind}, {name}", operator, mu)
    if kind == "wide":
        return _known(kind, _dense(rng.normal(size=(N // 2, N))), mu)
    if kind == "diagonal":
        return _known(kind, Diagonal(jnp.asarray(rng.integers(0, 3, IMAGE).astype(float))), mu)
    boundary: Any = rng.choice(["periodic", "zero", "symmetric", "edge"])
    blur: Operator = SeparableConvolution((_taps(rng), _taps(rng)), IMAGE, boundary)
    if kind == "circular":
        blur = fourier_convolution(rng.normal(size=(3, 5)), IMAGE, "float64")
    if kind == "masked":
        seen = jnp.asarray(rng.integers(0, 2, IMAGE).astype(float))
        blur = Composition((Diagonal(seen), blur))
    return _known(f"{kind}, {boundary}", blur, mu)
