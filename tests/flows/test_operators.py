"""Operators are linear, have the adjoint they say, and know only true facts about themselves."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from temporal_fabric.flows.certificates.krylov import power_norm
from temporal_fabric.flows.operators import Dense, Operator
from temporal_fabric.flows.own_operators import OwnOperator, adjoint_defect
from temporal_fabric.flows.precision import cast
from tests.flows.parts import blur, matrix_of, normal, operators, skew_kernel

if TYPE_CHECKING:
    from jax import Array

OPERATORS = operators()


@pytest.fixture(params=OPERATORS)
def operator(request: pytest.FixtureRequest) -> Operator:
    """Each operator in turn."""
    return OPERATORS[request.param]


def test_the_adjoint_is_the_transpose(operator: Operator) -> None:
    """<A x, y> = <x, A'y> up to rounding, for Gaussian probes."""
    assert adjoint_defect(operator, seed=1) < 1e-14


def test_shapes_and_dtype_are_kept(operator: Operator) -> None:
    """What comes out has the shape and the dtype that the operator declares."""
    y = operator.matvec(jnp.ones(operator.in_shape, operator.dtype))
    x = operator.adjoint(y)

    assert (y.shape, str(y.dtype)) == (operator.out_shape, operator.dtype)
    assert (x.shape, str(x.dtype)) == (operator.in_shape, operator.dtype)


def test_an_operator_is_an_argument_of_compiled_code(operator: Operator) -> None:
    """Programs take operators as pytrees; in float32 they stay in float32."""
    single = cast(operator, "float32")
    x = normal(5, *operator.in_shape, dtype="float32")

    @jax.jit
    def apply(op: Operator, x: Array) -> Array:
        return op.matvec(x)

    assert apply(single, x).dtype == jnp.float32


def test_the_norm_bound_is_never_below_the_norm(operator: Operator) -> None:
    """A bound called proved holds against the dense matrix."""
    bound = operator.facts().norm

    if bound is not None:
        assert bound >= np.linalg.norm(matrix_of(operator), 2) * (1 - 1e-14)


def test_every_fact_is_true_of_the_matrix(operator: Operator) -> None:
    """Symbol, Gram symbol, diagonal, factors, matrix and symmetry reproduce the dense matrix."""
    facts = operator.facts()
    matrix = matrix_of(operator)
    x = np.asarray(normal(6, *operator.in_shape))
    ax = (matrix @ x.ravel()).reshape(operator.out_shape)
    gram = (matrix.T @ matrix @ x.ravel()).reshape(operator.in_shape)

    for claimed, true in (
        (_by_symbol(facts.fourier, x), ax),
        (_by_symbol(facts.gram_fourier, x), gram),
        (None if facts.diagonal is None else facts.diagonal * x, ax),
        (None if facts.factors is None else _by_factors(facts.factors, x), ax),
        (None if facts.matrix is None else (facts.matrix @ x.ravel()).reshape(ax.shape), ax),
    ):
        if claimed is not None:
            np.testing.assert_allclose(claimed, true, atol=1e-12)
    if facts.symmetric:
        np.testing.assert_allclose(matrix, matrix.T, atol=1e-13)


def _by_symbol(symbol: Any, x: Any) -> Any:
    return None if symbol is None else np.fft.ifftn(symbol * np.fft.fftn(x)).real


def _by_factors(factors: Any, x: Any) -> Any:
    for axis, factor in enumerate(factors):
        x = np.moveaxis(np.tensordot(factor, x, (1, axis)), 0, axis)
    return x


def test_shift_and_reach_are_true_of_the_matrix(operator: Operator) -> None:
    """The operator commutes with the shifts it names, and has no entries beyond its reach."""
    facts = operator.facts()
    x = normal(7, *operator.in_shape)
    axes = tuple(range(x.ndim))
    if facts.shift is not None:
        out = tuple(range(-x.ndim, 0))
        moved = jnp.roll(operator.matvec(x), facts.shift, out)
        shifted = operator.matvec(jnp.roll(x, facts.shift, axes))
        np.testing.assert_allclose(shifted, moved, atol=1e-12)
    if facts.reach is not None:
        impulse = jnp.zeros_like(x).at[(0,) * x.ndim].set(1)
        for axis, reach in enumerate(facts.reach):
            others = tuple(at for at in axes if at != axis)
            reached = np.flatnonzero(np.abs(np.asarray(operator.matvec(impulse))).sum(others))
            away = np.minimum(reached, x.shape[axis] - reached)
            assert away.max(initial=0) <= reach


@pytest.mark.parametrize(
    ("boundary", "mode"),
    [("periodic", "wrap"), ("zero", "constant"), ("symmetric", "reflect"), ("edge", "nearest")],
)
def test_boundaries_are_those_of_scipy(boundary: str, mode: str) -> None:
    """Each boundary agrees with the one of the same meaning in scipy."""
    x = normal(8, 16, 20)
    taps = np.asarray(blur((16, 20)).taps[0])
    expected = ndimage.convolve1d(np.asarray(x), taps, 0, mode=mode)
    expected = ndimage.convolve1d(expected, taps, 1, mode=mode)

    np.testing.assert_allclose(blur((16, 20), boundary).matvec(x), expected, atol=1e-14)


def test_circular_convolution_is_that_of_scipy() -> None:
    """A kernel without symmetry is centred and not flipped."""
    x = normal(9, 8, 12)
    expected = ndimage.convolve(np.asarray(x), skew_kernel(), mode="wrap")

    np.testing.assert_allclose(OPERATORS["fft"].matvec(x), expected, atol=1e-14)


def test_edge_padding_amplifies_more_than_its_kernel() -> None:
    """The sum of the kernel is no bound with edge padding; the stated bound is."""
    wide = blur((32, 32), "edge", sigma=3.0)

    assert float(np.abs(np.asarray(wide.taps[0])).sum()) == pytest.approx(1)
    assert np.linalg.norm(matrix_of(wide), 2) > 1.01
    assert (wide.facts().norm or 0) >= np.linalg.norm(matrix_of(wide), 2)


def _matvec(parameters: Array, x: Array) -> Array:
    return parameters @ x


def _wrong(parameters: Array, y: Array) -> Array:
    return parameters @ y


def test_a_wrong_adjoint_is_found() -> None:
    """A user's adjoint that is not the transpose fails the test by a wide margin."""
    square = normal(10, 6, 6)
    wrong = OwnOperator(square, (6,), (6,), "float64", _matvec, _wrong)
    right = OwnOperator(square, (6,), (6,), "float64", _matvec)

    assert adjoint_defect(wrong, seed=2) > 1e-2
    assert adjoint_defect(right, seed=2) < 1e-15
    assert wrong.facts().adjoint == "user"
    assert right.facts().adjoint == "derived"


def _nothing(parameters: Array, y: Array) -> Array:
    return jnp.nan * (parameters @ y)


def test_nan_is_no_small_defect() -> None:
    """An adjoint or a defect that gives NaN is not taken for one that gives zero."""
    square = normal(10, 6, 6)
    broken = OwnOperator(square, (6,), (6,), "float64", _matvec, _nothing)
    assert math.isnan(adjoint_defect(broken, seed=2))
    assert math.isnan(power_norm(lambda x: jnp.nan * x, (6,))[1])
    assert power_norm(lambda x: 0 * x, (6,)) == (0, 0)


def test_a_dense_bound_is_the_smaller_of_two() -> None:
    """The identity is bounded by its row sums, not by its Frobenius norm."""
    bound = Dense(jnp.eye(50), (50,), (50,)).facts().norm

    assert bound == pytest.approx(1)
