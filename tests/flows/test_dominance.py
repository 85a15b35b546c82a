"""eta_dd: exact against the dense matrix, and cheap where a dense matrix cannot be had."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from temporal_fabric.flows.certificates.dominance import eta_dd, row_sums
from temporal_fabric.flows.certificates.hessian import Hessian, hessians
from temporal_fabric.flows.convolutions import (
    SeparableConvolution,
    fourier_convolution,
    gaussian_taps,
)
from temporal_fabric.flows.facts import Facts
from temporal_fabric.flows.fourier import FourierTransform
from temporal_fabric.flows.operators import Composition, Dense, Diagonal, Identity, static
from temporal_fabric.flows.wavelets import Wavelet
from tests.flows.campaign_size import SEED, drawn
from tests.flows.parts import matrix_of
from tests.flows.spectra import hidden, least_squares, quadratic

if TYPE_CHECKING:
    from temporal_fabric.flows.energy import Energy
    from temporal_fabric.flows.operators import Operator

MEASURED = {
    0.4: (0.39, 1.15, 0.516),
    0.7: (4.97, 12.8, 13.1),
    1.0: (11.6, 47.7, 59.8),
    3.0: (112, 1639, 36269),
}
"""eta_dd of a Gaussian blur on 256 x 256 in pixels, Haar and db4, measured another way."""

REPAIRS = {0.7: (0.76, 3.88, 0.92), 1.0: (0.94, 4.97, 1.21), 3.0: (1.09, 5.96, 1.17)}
"""mu for which eta_dd is 0.9."""


def _block(energy: Energy, shape: tuple[int, ...]) -> Hessian:
    (block,) = hessians(energy, {"x": jnp.zeros(shape)})
    return block


def _lens(name: str, shape: tuple[int, ...], levels: int = 5) -> Operator:
    return (
        Identity(shape, "float64") if name == "pixels" else Wavelet(name, levels, shape, "float64")
    )


def _dense_ratio(block: Hessian, lens: Operator) -> float:
    shape = block.shape
    units = jnp.eye(block.size).reshape(block.size, *shape)
    columns = jax.jit(jax.vmap(block.apply))(units)
    apply = np.asarray(columns).reshape(block.size, -1).T
    w = matrix_of(lens)
    matrix = w @ apply @ w.T
    diagonal = np.diag(matrix)
    if (diagonal <= 0).any():
        return float("inf")
    return float(((np.abs(matrix).sum(1) - np.abs(diagonal)) / diagonal).max())


@pytest.mark.parametrize("sigma", list(MEASURED))
def test_photograph_sized_blurs_have_the_measured_ratio(sigma: float) -> None:
    """65,536 unknowns, three lenses: the known values, from small tables."""
    taps = gaussian_taps(sigma)
    blur = fourier_convolution(np.outer(taps, taps), (256, 256), "float64")
    block = _block(least_squares(blur), (256, 256))
    for at, name in enumerate(("pixels", "haar", "db4")):
        lens = _lens(name, (256, 256))
        rows = row_sums(block, lens)
        finding = eta_dd(block, lens, rows)

        assert rows is not None
        assert finding.value == pytest.approx(MEASURED[sigma][at], rel=6e-3)
        if sigma in REPAIRS:
            assert rows.mu_for(0.9) == pytest.approx(REPAIRS[sigma][at], abs=6e-3)


def test_a_million_unknowns_need_no_matrix() -> None:
    """In one dimension the kernel's reach decides, not the length of the signal."""
    n = 1 << 20
    taps = jnp.asarray(gaussian_taps(3.0, 12))
    small, large = 2048, n
    values: list[float | None] = []
    for side in (small, large):
        blur = SeparableConvolution((taps,), (side,), "periodic")
        lens = Wavelet("haar", 5, (side,), "float64")
        block = _block(least_squares(blur, 0.05), (side,))
        started = time.monotonic()
        values.append(eta_dd(block, lens, row_sums(block, lens)).value)

        assert time.monotonic() - started < 60

    assert values[0] == pytest.approx(4.5, rel=0.02)
    assert values[1] == pytest.approx(values[0], rel=1e-6)


def _random_problem(rng: np.random.Generator) -> tuple[Hessian, Operator]:
    """Return a small operator and a lens of a random kind."""
    one_axis = bool(rng.integers(0, 2))
    shape = (32,) if one_axis else (16, 8)
    taps: list[Any] = [jnp.asarray(rng.normal(size=3)) for _ in shape]
    boundary: Any = rng.choice(["periodic", "zero", "symmetric", "edge"])
    blurs: list[Operator] = [
        SeparableConvolution(tuple(taps), shape, boundary),
        fourier_convolution(rng.normal(size=(3,) * len(shape)), shape, "float64"),
        Composition(
            (
                Diagonal(jnp.asarray(rng.uniform(0.5, 1, shape))),
                SeparableConvolution(tuple(taps), shape, "zero"),
            )
        ),
    ]
    operator = blurs[int(rng.integers(0, 3))]
    name = str(rng.choice(["pixels", "haar", "db4"]))
    mu = float(rng.choice([0.0, 0.3]))
    return _block(least_squares(operator, mu), shape), _lens(name, shape, 2)


def test_denoising_an_image_couples_nothing() -> None:
    """Without an operator the Hessian is the identity in every orthonormal lens, at any size."""
    (block,) = hessians(
        least_squares(Identity((256, 256), "float64")), {"x": jnp.zeros((256, 256))}
    )
    for lens in (Wavelet("db4", 5, (256, 256), "float64"), Identity((256, 256), "float64")):
        found = eta_dd(block, lens, row_sums(block, lens))
        assert (found.value, found.error) == (0.0, 0.0)


def test_the_ratio_is_that_of_the_dense_matrix() -> None:
    """Tables, symbols and colours give what the whole matrix gives, and never less."""
    rng = np.random.default_rng(SEED)
    for _ in range(drawn(200)):
        block, lens = _random_problem(rng)
        exact = _dense_ratio(block, lens)
        value = eta_dd(block, lens, row_sums(block, lens)).value

        assert value is not None
        assert value == pytest.approx(exact, rel=1e-6)
        assert value >= exact * (1 - 1e-12)


@pytest.mark.parametrize("values", [-np.ones(8), np.arange(8.0), np.append(np.ones(7), -1e-7)])
def test_a_diagonal_that_is_not_positive_is_no_dominance(values: np.ndarray) -> None:
    """Without the sign, -I would have eta_dd = 0 and a radius of zero around +1."""
    block = _block(quadratic(Diagonal(jnp.asarray(values))), (8,))
    rows = row_sums(block, _lens("pixels", (8,)))

    assert rows is not None
    assert eta_dd(block, _lens("pixels", (8,)), rows).value == float("inf")
    assert rows.gershgorin() == values.min()


def test_a_dominant_matrix_is_positive_definite_by_gershgorin() -> None:
    """Where eta_dd is below 1 the signed circles bound the least eigenvalue away from zero."""
    matrix = np.eye(6) * 2 + np.diag(np.full(5, -0.5), 1) + np.diag(np.full(5, -0.5), -1)
    block = _block(quadratic(Dense(jnp.asarray(matrix), (6,), (6,))), (6,))
    rows = row_sums(block, _lens("pixels", (6,)))

    assert rows is not None
    assert eta_dd(block, _lens("pixels", (6,)), rows).value == pytest.approx(0.5)
    assert 0.99 < rows.gershgorin() <= np.linalg.eigvalsh(matrix)[0]


def test_what_has_no_structure_is_not_computed_and_says_so() -> None:
    """Beyond the sizes for columns one by one there is no value, hence no pass."""
    n = 2500
    rng = np.random.default_rng(1)
    block = _block(least_squares(hidden(rng.normal(size=(4, n)))), (n,))
    lens = _lens("pixels", (n,))
    finding = eta_dd(block, lens, row_sums(block, lens))

    assert finding.value is None
    assert "not computed" in finding.found


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Reaching:
    """An operator that says of itself how far it reaches, and nothing else."""

    inner: SeparableConvolution
    reach: int = static()

    @property
    def in_shape(self) -> tuple[int, ...]:
        return self.inner.in_shape

    @property
    def out_shape(self) -> tuple[int, ...]:
        return self.inner.out_shape

    def matvec(self, x: Any) -> Any:
        return self.inner.matvec(x)

    def adjoint(self, y: Any) -> Any:
        return self.inner.adjoint(y)

    def facts(self) -> Facts:
        return Facts(reach=(self.reach,))


@pytest.mark.parametrize(("reach", "believed"), [(6, True), (1, False)])
def test_a_wrong_reach_is_not_believed(reach: int, *, believed: bool) -> None:
    """Colours rest on the reach that is stated; random signs show columns that meet."""
    n = 4608
    blur = SeparableConvolution((jnp.asarray(gaussian_taps(2.0, 6)),), (n,), "periodic")
    stated: Any = _Reaching(blur, reach)
    lens = _lens("pixels", (n,))
    rows = row_sums(_block(least_squares(stated), (n,)), lens)
    exact = row_sums(_block(least_squares(blur), (n,)), lens)

    assert (rows is not None) is believed
    if rows is not None and exact is not None:
        assert rows.ratio(0) == pytest.approx(exact.ratio(0), rel=1e-9)


def test_a_lens_of_complex_numbers_gives_no_ratio() -> None:
    """In its own Fourier basis every blur is diagonal, which says nothing about a prior."""
    blur = fourier_convolution(np.ones((3, 3)), (16, 16), "float64")
    block = _block(least_squares(blur), (16, 16))

    assert row_sums(block, FourierTransform((16, 16), "float64")) is None
