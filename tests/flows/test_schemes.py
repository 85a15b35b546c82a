"""Each scheme reaches the optimum that an independent solver finds, and checks its own steps."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import optimize

from temporal_fabric.flows.chunk import Chunk, run_chunk
from temporal_fabric.flows.differences import Gradient
from temporal_fabric.flows.energy import Energy, NonsmoothTerm, QuadraticForm, SmoothTerm
from temporal_fabric.flows.group_penalties import GroupL1
from temporal_fabric.flows.losses import Squared
from temporal_fabric.flows.observables import Invariant, Observables
from temporal_fabric.flows.operators import Dense, Identity
from temporal_fabric.flows.penalties import L1, Box
from temporal_fabric.flows.precision import cast
from temporal_fabric.flows.scales import Scales
from temporal_fabric.flows.schemes.accelerated import Accelerated
from temporal_fabric.flows.schemes.guided import Guided
from temporal_fabric.flows.schemes.hamiltonian import HamiltonianDamped
from temporal_fabric.flows.schemes.preconditioned import Preconditioned
from temporal_fabric.flows.schemes.primal_dual import PrimalDual
from temporal_fabric.flows.schemes.proximal import Proximal
from temporal_fabric.flows.wavelets import Wavelet
from tests.flows.parts import blur, normal
from tests.flows.problems import LAMBDA, lasso, problem

if TYPE_CHECKING:
    from temporal_fabric.flows.schemes.contract import Problem, Scheme

ENERGY, BETA = lasso()
RIDGE = Energy(lasso(0.1)[0].smooth, ())
START = {"x": jnp.zeros(40)}


def _run(scheme: Scheme, task: Problem, start: Any, iterations: int, every: int = 1) -> Chunk:
    carry = scheme.init(task, start)
    return run_chunk(scheme, task, carry, iterations=iterations, sample_every=every)


def _lasso_by_scipy() -> float:
    """Solve the lasso as a bounded smooth problem in its positive and negative parts."""
    a, y = np.asarray(normal(1, 20, 40) / 5), np.asarray(normal(2, 20))

    def both(parts: Any) -> tuple[float, Any]:
        r = a @ (parts[:40] - parts[40:]) - y
        slope = a.T @ r
        return 0.5 * r @ r + LAMBDA * parts.sum(), np.r_[slope + LAMBDA, LAMBDA - slope]

    tight = {"ftol": 1e-16, "gtol": 1e-12, "maxiter": 5000}
    bounds = [(0, None)] * 80
    found = optimize.minimize(
        both, np.zeros(80), jac=True, bounds=bounds, method="L-BFGS-B", options=tight
    )
    return float(found.fun)


METRIC = jnp.abs(jnp.asarray(normal(1, 20, 40) / 5).T @ (normal(1, 20, 40) / 5)).sum(1)
LASSO: dict[str, tuple[Any, Problem]] = {
    "proximal": (Proximal(), problem(ENERGY, 1.9 / BETA, BETA)),
    "accelerated": (Accelerated(), problem(ENERGY, 1 / BETA, BETA)),
    "accelerated by value": (Accelerated("value"), problem(ENERGY, 1 / BETA, BETA)),
    "accelerated plain": (Accelerated("none"), problem(ENERGY, 1 / BETA, BETA)),
    "preconditioned": (Preconditioned(), problem(ENERGY, 1, BETA, metric={0: METRIC})),
    "primal dual": (
        PrimalDual((), (0,)),
        problem(ENERGY, 1 / BETA, BETA, sigma=jnp.asarray(BETA / 2)),
    ),
}


@pytest.mark.parametrize("name", LASSO)
def test_the_lasso_is_solved(name: str) -> None:
    """The objective is scipy's to 1e-6, no inequality is violated, and no step is rejected."""
    chunk = _run(*LASSO[name], START, 3000, every=100)

    assert float(chunk.rows["E"][-1]) == pytest.approx(_lasso_by_scipy(), rel=1e-6)
    assert chunk.worst_violation <= 1
    assert 0 < chunk.worst_curvature <= 1
    assert int(chunk.rows["rejected"].sum()) == 0


SMOOTH: dict[str, tuple[Any, Problem]] = {
    "gradient": (Proximal(), problem(RIDGE, 1.9 / (BETA + 0.1), BETA + 0.1)),
    "hamiltonian": (
        HamiltonianDamped(),
        problem(RIDGE, 1.8 / (BETA + 0.1) ** 0.5, BETA + 0.1, friction=jnp.asarray(0.6)),
    ),
    "adam": (Guided(optax.adam(1e-2)), problem(RIDGE, 1 / (BETA + 0.1), BETA + 0.1)),
    "too fast": (Guided(optax.sgd(10.0)), problem(RIDGE, 1 / (BETA + 0.1), BETA + 0.1)),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_schemes_reach_the_closed_form(name: str) -> None:
    """Ridge regression has a closed form; also a diverging optimiser is led there."""
    a, y = np.asarray(normal(1, 20, 40) / 5), np.asarray(normal(2, 20))
    expected = np.linalg.solve(a.T @ a + 0.1 * np.eye(40), a.T @ y)
    chunk = _run(*SMOOTH[name], START, 2000, every=100)

    np.testing.assert_allclose(chunk.carry.z["x"], expected, atol=1e-4)
    assert chunk.worst_violation <= 1
    if name == "too fast":
        assert int(chunk.rows["restarted"].sum()) > 0


def test_acceleration_needs_fewer_iterations() -> None:
    """Momentum reaches a gap of 1e-6 in less than half of the plain steps."""
    best = _lasso_by_scipy()
    counts = []
    for name in ("proximal", "accelerated"):
        energies = np.asarray(_run(*LASSO[name], START, 3000).rows["E"])
        counts.append(int(np.argmax(energies <= best * (1 + 1e-6))))

    assert 0 < 2 * counts[1] < counts[0]


def test_a_curvature_above_the_bound_is_rejected_and_mended() -> None:
    """With a beta_up that is ten times too small the steps shrink until they descend."""
    wrong = problem(ENERGY, 19 / BETA, BETA / 10)
    chunk = _run(Proximal(), wrong, START, 3000, every=100)

    assert int(chunk.rows["rejected"].sum()) >= 3
    assert float(chunk.rows["E"][-1]) == pytest.approx(_lasso_by_scipy(), rel=1e-6)
    assert chunk.worst_violation <= 1


def test_a_wrong_gradient_violates_descent() -> None:
    """An adjoint with a sign wrong is caught by the descent check of the first steps."""

    class Wrong(Dense):
        def adjoint(self, y: Any) -> Any:
            return -super().adjoint(y)

    jax.tree_util.register_dataclass(
        Wrong, data_fields=["matrix"], meta_fields=["in_shape", "out_shape"]
    )
    term: Any = ENERGY.smooth[0]
    wrong = replace(term, operators={"x": Wrong(term.operators["x"].matrix, (40,), (20,))})
    task = problem(Energy((wrong,), ENERGY.nonsmooth), 1 / BETA, BETA)
    chunk = _run(Proximal(), task, {"x": normal(3, 40)}, 3)

    assert chunk.worst_violation > 1e6


def test_not_a_number_is_a_violation() -> None:
    """A state that is not finite never passes for a small step."""
    chunk = _run(Proximal(), problem(ENERGY, 1 / BETA, BETA), {"x": jnp.full(40, jnp.nan)}, 2)

    assert not chunk.worst_violation <= 1


@pytest.mark.parametrize("name", ["accelerated", "primal dual", "preconditioned"])
def test_two_chunks_are_one(name: str) -> None:
    """Stopping at a chunk's boundary and going on gives the same bits as going on at once."""
    scheme, task = LASSO[name]
    whole = _run(scheme, task, START, 10)
    for length in (4, 6):
        whole = run_chunk(scheme, task, whole.carry, iterations=length)
    half = _run(scheme, task, START, 10)
    leaves, structure = jax.tree.flatten(half.carry)
    restored = jax.tree.unflatten(structure, [jnp.asarray(np.array(leaf)) for leaf in leaves])
    for length in (4, 6):
        half = run_chunk(scheme, task, restored, iterations=length)
        restored = half.carry

    assert np.array_equal(half.carry.z["x"], whole.carry.z["x"])


def test_tv_with_a_box_is_solved_by_primal_dual() -> None:
    """Total variation of a blurred image inside [0, 1] reaches a zero duality gap."""
    shape = (8, 8)
    y = jnp.clip(normal(4, *shape), 0, 1)
    tv = NonsmoothTerm(
        jnp.asarray(0.05), GroupL1(jnp.asarray(1.0), (0,)), Gradient(shape, "float64"), "x", "tv"
    )
    box = NonsmoothTerm(
        jnp.asarray(1.0), Box(jnp.asarray(0.0), jnp.asarray(1.0)), Identity(shape, "float64"), "x"
    )
    data = SmoothTerm(jnp.asarray(1.0), Squared(y), {"x": blur(shape)})
    task = problem(
        Energy((data,), (tv, box)), 1 / (0.5 + 0.5), 1 + 1e-9, sigma=jnp.asarray(1 / 16.1)
    )
    chunk = _run(PrimalDual((1,), (0,)), task, {"x": y}, 4000, every=500)

    x, (p,) = chunk.carry.z["x"], chunk.carry.extra.p
    r = data.predict({"x": x}) - y
    s = blur(shape).adjoint(r) + tv.operator.adjoint(p)
    gap = task.energy.value({"x": x}) + 0.5 * jnp.sum(r**2) + jnp.sum(r * y)
    gap += jnp.sum(jnp.maximum(0, -s))
    assert 0 <= float(gap) + 1e-12 < 1e-8
    assert chunk.worst_violation <= 1


def test_plain_tv_denoising_agrees_with_the_taut_string() -> None:
    """In one dimension TV of two samples has a closed form: both move by lambda."""
    tv = NonsmoothTerm(jnp.asarray(0.2), L1(jnp.asarray(1.0)), Gradient((2,), "float64"), "x")
    data = SmoothTerm(
        jnp.asarray(1.0), Squared(jnp.asarray([0.0, 1.0])), {"x": Identity((2,), "float64")}
    )
    task = problem(Energy((data,), (tv,)), 0.9, 1.0, sigma=jnp.asarray(0.15))
    chunk = _run(PrimalDual((), (0,)), task, {"x": jnp.zeros(2)}, 500, every=100)

    np.testing.assert_allclose(chunk.carry.z["x"], [0.2, 0.8], atol=1e-10)


def test_a_schedule_moves_coarse_scales_first() -> None:
    """Fine coefficients stay until their scale is active; in the end the optimum is the same."""
    lens = Wavelet("haar", 3, (32,), "float64")
    data = SmoothTerm(jnp.asarray(1.0), Squared(normal(5, 32)), {"x": blur((32,))})
    energy = Energy((data,), (NonsmoothTerm(jnp.asarray(0.05), L1(jnp.asarray(1.0)), lens, "x"),))
    levels = jnp.asarray(lens.levels_of(), jnp.int32)
    scales = Scales(levels, jnp.asarray(0.5), jnp.asarray(5), 0, "fixed_schedule", 0, 3)
    task = problem(energy, 1.0, 1.0 + 1e-9, scales=scales)
    start = {"x": jnp.zeros(32)}
    for scheme in (Proximal(), Accelerated()):
        early = _run(scheme, task, start, 4)
        fine = lens.matvec(early.carry.z["x"])[levels > 0]
        late = _run(scheme, task, start, 2000, every=200)
        free = _run(scheme, problem(energy, 1.0, 1.0 + 1e-9), start, 2000, every=200)

        np.testing.assert_allclose(fine, 0, atol=1e-14)
        assert int(late.rows["level_active_max"][-1]) == 3
        assert float(late.rows["E"][-1]) == pytest.approx(float(free.rows["E"][-1]), rel=1e-9)
        assert late.worst_violation <= 1
    driven = replace(task, scales=replace(scales, mode="residual_driven"))
    assert int(_run(Proximal(), driven, start, 500, every=50).rows["level_active_max"][-1]) == 3


def test_single_precision_stays_single() -> None:
    """In float32 every array of a run is float32, and correct steps raise no false alarm."""
    for name in ("proximal", "accelerated"):
        scheme, task = LASSO[name]
        chunk = _run(scheme, cast(task, "float32"), cast(START, "float32"), 600, every=10)
        kinds = {str(leaf.dtype) for leaf in jax.tree.leaves((chunk.carry, chunk.rows))}

        assert kinds == {"float32", "int32"}
        assert chunk.worst_violation <= 1
        assert int(chunk.rows["rejected"].sum()) == 0


def test_telemetry_names_what_was_declared() -> None:
    """Invariants appear as a column where they are declared, with the drift from the start."""
    scheme, task = LASSO["proximal"]
    mass = Invariant(jnp.asarray(0.0), "mass", "x", "sum")
    carry = scheme.init(task, START)
    rows = run_chunk(
        scheme, task, carry, iterations=6, sample_every=3, observables=Observables((mass,))
    ).rows

    assert rows["iter"].tolist() == [3, 6]
    assert rows["invariant_drift_max"].shape == (2,)
    assert "phi_residual" not in rows
    with pytest.raises(ValueError, match="multiple"):
        run_chunk(scheme, task, carry, iterations=5, sample_every=3)


def test_an_indefinite_form_descends_inside_a_box() -> None:
    """A concave direction is followed to the box, with the same inequality."""
    form = QuadraticForm(
        jnp.asarray(1.0), Dense(jnp.diag(jnp.asarray([-1.0, 2.0])), (2,), (2,)), jnp.zeros(2), "x"
    )
    box = NonsmoothTerm(
        jnp.asarray(1.0), Box(jnp.asarray(-1.0), jnp.asarray(1.0)), Identity((2,), "float64"), "x"
    )
    chunk = _run(
        Proximal(), problem(Energy((form,), (box,)), 0.5, 2.0), {"x": jnp.asarray([0.1, 0.5])}, 50
    )

    np.testing.assert_allclose(chunk.carry.z["x"], [1, 0], atol=1e-9)
    assert chunk.worst_violation <= 1
