"""Transforms invert, keep energy as their frame says, and agree with PyWavelets."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import pywt

from temporal_fabric.flows.operators import Identity
from temporal_fabric.flows.own_operators import adjoint_defect
from temporal_fabric.flows.transforms import Transform
from temporal_fabric.flows.wavelets import WAVELETS, Wavelet, deepest, level_matrix, lowpass
from tests.flows.parts import matrix_of, normal, ring, transforms

TRANSFORMS = transforms()


@pytest.fixture(params=TRANSFORMS)
def transform(request: pytest.FixtureRequest) -> Any:
    """Each transform in turn."""
    return TRANSFORMS[request.param]


@jax.jit
def _there_and_back(transform: Any, x: Any) -> Any:
    return transform.inverse(transform.matvec(x))


def test_the_inverse_inverts(transform: Any) -> None:
    """W^-1 W x = x, far below the 1e-6 that a run asks for."""
    x = normal(1, *transform.in_shape)

    assert isinstance(transform, Transform)
    np.testing.assert_allclose(_there_and_back(transform, x), x, atol=1e-12)


def test_the_adjoint_is_the_transpose(transform: Any) -> None:
    """<W x, u> = <x, W'u> in the real inner product."""
    assert adjoint_defect(transform, seed=1) < 1e-14


def test_the_frame_is_what_is_declared(transform: Any) -> None:
    """W'W = I always; W W' = I where the frame says orthonormal and the coefficients are real."""
    matrix = matrix_of(transform)
    gram = (matrix.conj().T @ matrix).real
    tolerance = 1e-13 if transform.frame == "orthonormal" else 1e-3

    np.testing.assert_allclose(gram, np.eye(len(gram)), atol=tolerance)
    assert (matrix.shape[0] == matrix.shape[1]) == (transform.frame == "orthonormal")
    assert np.linalg.norm(matrix, 2) <= transform.facts().norm


def test_scales_stand_where_the_coefficients_do(transform: Any) -> None:
    """The scale of each coefficient has the coefficients' shape and starts at zero."""
    levels = transform.levels_of()

    if not isinstance(transform, Identity):
        assert levels.shape == transform.out_shape
        assert levels.min() == 0


@pytest.mark.parametrize("name", WAVELETS)
def test_filters_are_daubechies(name: str) -> None:
    """Even shifts are orthonormal, and the details kill polynomials up to the order."""
    low = np.array(lowpass(name))
    high = low[::-1] * (-1.0) ** np.arange(len(low))
    shifts = [low[k:] @ low[: len(low) - k] for k in range(0, len(low), 2)]
    centred = (np.arange(len(low)) - len(low) / 2) / len(low)

    np.testing.assert_allclose(shifts, [1] + [0] * (len(low) // 2 - 1), atol=1e-15)
    for moment in range(WAVELETS[name]):
        assert abs(high @ centred**moment) < 1e-14


@pytest.mark.parametrize("name", WAVELETS)
def test_filters_are_those_of_pywavelets(name: str) -> None:
    """The scaling filter is PyWavelets' own, to the digits it has."""
    theirs: Any = pywt

    np.testing.assert_allclose(lowpass(name), theirs.Wavelet(name).rec_lo, atol=1e-10)


@pytest.mark.parametrize("name", WAVELETS)
def test_coefficients_are_those_of_pywavelets(name: str) -> None:
    """The coefficients of one level are PyWavelets' (periodization), up to order and sign.

    PyWavelets centres its filters: its samples start N - 1 later.
    """
    x = normal(2, 64)
    ours = np.asarray(Wavelet(name, 1, (64,), "float64").matvec(x))
    theirs = np.concatenate(pywt.dwt(np.roll(x, WAVELETS[name] - 1), name, mode="periodization"))

    for half in (slice(32), slice(32, None)):
        np.testing.assert_allclose(
            np.sort(np.abs(ours[half])), np.sort(np.abs(theirs[half])), atol=1e-9
        )


def test_every_layout_is_the_matrix() -> None:
    """Blocks, dense products and the one-product Haar all are the same level matrices."""
    for name, n in (("haar", 128), ("db4", 128), ("db8", 256), ("db4", 72), ("db8", 40)):
        x = normal(3, n)
        u = np.asarray(Wavelet(name, 1, (n,), "float64").matvec(x))
        np.testing.assert_allclose(u, level_matrix(name, n) @ np.asarray(x), atol=1e-13)
    x = normal(4, 128)
    deep = np.asarray(Wavelet("haar", 2, (128,), "float64").matvec(x))
    first = level_matrix("haar", 128) @ np.asarray(x)
    second = np.concatenate([level_matrix("haar", 64) @ first[:64], first[64:]])
    np.testing.assert_allclose(deep, second, atol=1e-13)


def test_a_shape_takes_as_many_levels_as_it_halves() -> None:
    """The axis with the fewest factors of two decides."""
    assert deepest((64, 48)) == 4
    assert deepest((31,)) == 0


def test_graph_bands_separate_smooth_from_rough() -> None:
    """On a ring, the constant is in the smoothest band and the alternating signal in the last."""
    graph = TRANSFORMS["graph"]
    smooth, rough = jnp.ones(20), jnp.where(jnp.arange(20) % 2 == 0, 1.0, -1.0)
    energies = [np.sum(np.asarray(graph.matvec(x)) ** 2, axis=1) for x in (smooth, rough)]

    assert energies[0].argmax() == 0
    assert energies[1].argmax() == len(energies[1]) - 1
    assert np.allclose(ring(20).sum(0), 0)
