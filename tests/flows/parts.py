"""Operators, transforms and penalties that tests go through one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from temporal_fabric.flows.convolutions import (
    BOUNDARIES,
    SeparableConvolution,
    fourier_convolution,
    gaussian_taps,
)
from temporal_fabric.flows.differences import Gradient
from temporal_fabric.flows.fourier import FourierTransform
from temporal_fabric.flows.graph_wavelets import graph_wavelet, laplacian
from temporal_fabric.flows.operators import (
    Composition,
    Dense,
    Diagonal,
    Identity,
    Operator,
    Scaled,
    Shape,
    Sum,
)
from temporal_fabric.flows.own_operators import OwnOperator
from temporal_fabric.flows.wavelets import Wavelet

if TYPE_CHECKING:
    from jax import Array


def normal(seed: int, *shape: int, dtype: str = "float64") -> Array:
    """Return a Gaussian array."""
    return jax.random.normal(jax.random.key(seed), shape, jnp.dtype(dtype))


def blur(shape: Shape, boundary: Any = "periodic", sigma: float = 0.7) -> SeparableConvolution:
    """Return a Gaussian blur by taps."""
    taps = jnp.asarray(gaussian_taps(sigma, 3))
    return SeparableConvolution((taps,) * len(shape), shape, boundary)


def skew_kernel() -> Any:
    """Return a small kernel without any symmetry."""
    return np.arange(15.0).reshape(3, 5) / 50


def _weighted(parameters: Array, x: Array) -> Array:
    return jnp.cumsum(parameters * x)


def operators() -> dict[str, Operator]:
    """Return one operator of every kind, and sums and products of them."""
    image = (8, 12)
    fft = fourier_convolution(skew_kernel(), image, "float64")
    mask = Diagonal((normal(1, *image) > 0).astype(jnp.float64))
    found: dict[str, Operator] = {
        "identity": Identity(image, "float64"),
        "dense": Dense(normal(2, 7, 10), (10,), (7,)),
        "dense image": Dense(normal(3, 5, 96), image, (5,)),
        "mask": mask,
        "fft": fft,
        "gradient free": Gradient(image, "float64"),
        "gradient periodic": Gradient(image, "float64", "periodic"),
        "scaled": Scaled(jnp.asarray(-2.5), fft),
        "sum": Sum((fft, mask, Identity(image, "float64"))),
        "circular sum": Sum((fft, Identity(image, "float64"))),
        "mask of blur": Composition((mask, fft)),
        "circular product": Composition((fft, blur(image))),
        "gradient of blur": Composition((Gradient(image, "float64", "periodic"), fft)),
        "own": OwnOperator(normal(4, 9), (9,), (9,), "float64", _weighted),
    }
    for boundary in BOUNDARIES:
        found[f"separable {boundary}"] = blur(image, boundary)
    return found


def ring(nodes: int) -> Any:
    """Return the Laplacian of a ring."""
    return laplacian(nodes, [(i, (i + 1) % nodes) for i in range(nodes)])


def transforms() -> dict[str, Any]:
    """Return one transform of every kind."""
    return {
        "pixels": Identity((8, 8), "float64"),
        "haar line": Wavelet("haar", 4, (64,), "float64"),
        "haar long": Wavelet("haar", 7, (256,), "float64"),
        "haar image": Wavelet("haar", 3, (16, 24), "float64"),
        "haar cube": Wavelet("haar", 2, (4, 8, 4), "float64"),
        "db4 line": Wavelet("db4", 5, (160,), "float64"),
        "db4 short": Wavelet("db4", 3, (8,), "float64"),
        "db4 image": Wavelet("db4", 2, (96, 4), "float64"),
        "db8 line": Wavelet("db8", 2, (128,), "float64"),
        "db8 image": Wavelet("db8", 1, (4, 6), "float64"),
        "fourier": FourierTransform((8, 6), "float64"),
        "graph": graph_wavelet(ring(20), 4, "float64"),
    }


def matrix_of(operator: Operator) -> Any:
    """Return the matrix of an operator on raveled arrays, one column an impulse."""
    size = int(np.prod(operator.in_shape))
    impulses = jnp.eye(size, dtype=jnp.dtype(operator.dtype)).reshape(size, *operator.in_shape)
    columns = jax.jit(jax.vmap(operator.matvec))(impulses)
    return np.asarray(columns).reshape(size, -1).T
