"""The duality gap, against an interior-point solver that knows nothing of it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import clarabel
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse

from temporal_fabric.flows.certificates.convexity import gamma_low
from temporal_fabric.flows.certificates.gap import Gap, duality_gap, gap
from temporal_fabric.flows.certificates.hessian import hessians
from temporal_fabric.flows.certificates.record import Need, Verdict, judge
from temporal_fabric.flows.certificates.stationarity import distance, kkt, strong_gap
from temporal_fabric.flows.convolutions import SeparableConvolution, gaussian_taps
from temporal_fabric.flows.differences import Gradient
from temporal_fabric.flows.energy import Energy, NonsmoothTerm, QuadraticForm, SmoothTerm
from temporal_fabric.flows.group_penalties import GroupL1
from temporal_fabric.flows.losses import Squared
from temporal_fabric.flows.operators import Dense, Diagonal, Identity
from temporal_fabric.flows.penalties import L0, L1, Box
from temporal_fabric.flows.wavelets import Wavelet
from tests.flows.campaign_size import SEED, drawn
from tests.flows.parts import matrix_of
from tests.flows.spectra import one

if TYPE_CHECKING:
    from collections.abc import Callable

    from temporal_fabric.flows.operators import Operator
    from temporal_fabric.flows.precision import F64

IMAGE = (8, 8)


def _energy(operator: Operator, target: Any, penalty: Any, lens: Operator, weight: float) -> Energy:
    fit = SmoothTerm(one(1.0), Squared(jnp.asarray(target)), {"x": operator}, name="fit")
    return Energy((fit,), (NonsmoothTerm(one(weight), penalty, lens, variable="x"),))


def _scene(rng: np.random.Generator) -> F64:
    scene = np.zeros(IMAGE)
    top, left = rng.integers(0, 4, 2)
    scene[top : top + 4, left : left + 3] = rng.uniform(0.5, 1)
    return scene + 0.05 * rng.normal(size=IMAGE)


def _deblurring(rng: np.random.Generator) -> Energy:
    taps = jnp.asarray(gaussian_taps(0.7, 2))
    blur = SeparableConvolution((taps, taps), IMAGE, "periodic")
    seen = blur.matvec(jnp.asarray(_scene(rng)))
    return _energy(blur, seen, L1(one(1.0)), Wavelet("db4", 2, IMAGE, "float64"), 0.02)


def _total_variation(rng: np.random.Generator) -> Energy:
    identity = Identity(IMAGE, "float64")
    variation = GroupL1(one(1.0), (0,))
    return _energy(identity, _scene(rng), variation, Gradient(IMAGE, "float64"), 0.1)


def _compressed_sensing(rng: np.random.Generator) -> Energy:
    mask = Diagonal(jnp.asarray(rng.integers(0, 2, IMAGE).astype(np.float64)))
    seen = mask.matvec(jnp.asarray(_scene(rng)))
    return _energy(mask, seen, L1(one(1.0)), Wavelet("haar", 3, IMAGE, "float64"), 0.02)


def _lasso(rng: np.random.Generator) -> Energy:
    matrix = Dense(jnp.asarray(rng.normal(size=(20, 32)) / 5), (32,), (20,))
    identity = Identity((32,), "float64")
    return _energy(matrix, rng.normal(size=20), L1(one(1.0)), identity, 0.1)


def _group_lasso(rng: np.random.Generator) -> Energy:
    matrix = Dense(jnp.asarray(rng.normal(size=(20, 32)) / 5), (8, 4), (20,))
    identity = Identity((8, 4), "float64")
    return _energy(matrix, rng.normal(size=20), GroupL1(one(1.0), (1,)), identity, 0.1)


PROBLEMS: dict[str, Callable[[np.random.Generator], Energy]] = {
    "deblurring": _deblurring,
    "total variation": _total_variation,
    "compressed sensing": _compressed_sensing,
    "lasso": _lasso,
    "group lasso": _group_lasso,
}


def _groups(energy: Energy) -> F64:
    """Return the rows of K x group by group: (groups, entries, unknowns)."""
    (term,) = energy.nonsmooth
    rows: F64 = matrix_of(term.operator)
    if not isinstance(term.penalty, GroupL1):
        return rows[:, None, :]
    (axis,) = term.penalty.axes
    moved = np.moveaxis(rows.reshape(*term.operator.out_shape, -1), axis, -2)
    return moved.reshape(-1, *moved.shape[-2:])


def solved(energy: Energy) -> F64:
    """Return the minimiser by Clarabel: |A x - y|^2/2 + weight sum t_g, |(K x)_g| <= t_g."""
    (fit,), (term,) = energy.smooth, energy.nonsmooth
    assert isinstance(fit, SmoothTerm)
    assert isinstance(fit.loss, Squared)
    a = matrix_of(fit.operators["x"])
    groups = _groups(energy)
    count, entries, size = groups.shape
    square = sparse.block_diag([np.triu(a.T @ a), np.zeros((count, count))], format="csc")
    target = np.asarray(fit.loss.target).reshape(-1)
    linear = np.concatenate([-a.T @ target, np.full(count, float(term.weight))])
    rows = np.zeros((count, 1 + entries, size + count))
    rows[np.arange(count), 0, size + np.arange(count)] = -1
    rows[:, 1:, :size] = -groups
    constraint = sparse.csc_matrix(rows.reshape(-1, size + count))
    solvers: Any = clarabel  # a compiled module without types
    cones = [solvers.SecondOrderConeT(1 + entries) for _ in range(count)]
    settings = solvers.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-11
    bound = np.zeros(count * (1 + entries))
    solver = solvers.DefaultSolver(square, linear, constraint, bound, cones, settings)
    return np.asarray(solver.solve().x)[:size]


@partial(jax.jit, static_argnums=2)
def _path(energy: Energy, start: Any, steps: int) -> tuple[Any, Any]:
    """Return the iterates of Chambolle and Pock, which serves all five, with their duals."""
    (fit,), (term,) = energy.smooth, energy.nonsmooth
    assert isinstance(fit, SmoothTerm)
    operator, lens = fit.operators["x"], term.operator
    half = jnp.asarray(0.25)

    def advance(carry: Any, _: None) -> Any:
        x, p = carry
        gradient = operator.adjoint(operator.matvec(x) - fit.loss.target)  # type: ignore[attr-defined]
        after = x - half * (gradient + lens.adjoint(p))
        p = term.dual_prox(p + half * lens.matvec(2 * after - x), half)
        return (after, p), (after, p)

    _, found = jax.lax.scan(advance, (start, jnp.zeros(lens.out_shape)), None, length=steps)
    xs, ps = found
    return xs, ps


@jax.jit
def _value(energy: Energy, x: Any) -> Any:
    return energy.value({"x": x})


@pytest.mark.parametrize("name", list(PROBLEMS))
def test_the_gap_is_never_below_the_true_difference(name: str) -> None:
    """At every point of every run: E - E of the solver's point <= the gap, rounding included."""
    rng = np.random.default_rng(SEED)
    for _ in range(drawn(50)):
        energy = PROBLEMS[name](rng)
        shape = next(iter(energy.smooth[0].operators.values())).in_shape  # type: ignore[attr-defined]
        best = _value(energy, jnp.asarray(solved(energy).reshape(shape)))
        xs, ps = _path(energy, jnp.asarray(rng.normal(size=shape)), 3000)
        for k in [0, 1, 2, 5, 10, 30, 100, 300, 1000, 2999]:
            for duals in ({0: ps[k]}, None):
                found = duality_gap(energy, {"x": xs[k]}, duals)
                assert isinstance(found, Gap)
                assert found.value >= float(_value(energy, xs[k]) - best)
                assert found.dual - found.error <= float(best)


@pytest.mark.parametrize("name", list(PROBLEMS))
def test_the_gap_becomes_small_and_the_objective_is_the_solvers(name: str) -> None:
    """An upper bound that stays large proves nothing: at the end it is 1e-6 of the energy."""
    energy = PROBLEMS[name](np.random.default_rng(SEED))
    shape = energy.nonsmooth[0].operator.in_shape
    xs, ps = _path(energy, jnp.zeros(shape), 20000)
    found = duality_gap(energy, {"x": xs[-1]}, {0: ps[-1]})
    best = float(energy.value({"x": jnp.asarray(solved(energy).reshape(shape))}))
    certificate = judge(gap(found), 1e-6, Need.PROOF)

    assert certificate.verdict is Verdict.PASS
    assert isinstance(found, Gap)
    assert found.primal == pytest.approx(best, rel=1e-6)


def test_every_way_to_take_up_the_dual_point_is_a_bound() -> None:
    """A box, a Tikhonov term, or scaling: three gaps of their own, and all of them hold."""
    rng = np.random.default_rng(SEED)
    lasso = _lasso(rng)
    (fit,) = lasso.smooth
    (l1,) = lasso.nonsmooth
    assert isinstance(fit, SmoothTerm)
    box = NonsmoothTerm(one(1.0), Box(one(-5.0), one(5.0)), l1.operator, variable="x")
    nothing = Squared(jnp.zeros(32))
    tikhonov = SmoothTerm(one(0.01), nothing, {"x": l1.operator}, name="tikhonov")
    methods: list[str] = []
    for energy in (lasso, Energy((fit,), (l1, box)), Energy((fit, tikhonov), (l1,))):
        xs, _ = _path(lasso, jnp.zeros(32), 500)
        found = [duality_gap(energy, {"x": x}) for x in (xs[0], xs[-1])]
        values = [float(energy.value({"x": x})) for x in xs]
        for point in found:
            assert isinstance(point, Gap)
            assert point.dual - point.error <= min(values)
            methods.append(point.method)

    assert len(set(methods)) == 3


def test_where_there_is_no_dual_it_says_so() -> None:
    """Without a term that bounds the point, or for a count of entries, there is no gap."""
    matrix = Dense(jnp.eye(4), (4,), (4,))
    fit = SmoothTerm(one(1.0), Squared(jnp.ones(4)), {"x": matrix})
    identity = Identity((4,), "float64")
    count = NonsmoothTerm(one(1.0), L0(one(1.0)), identity, variable="x", name="l0")
    form = QuadraticForm(one(1.0), matrix, jnp.ones(4), variable="x")
    energies = (Energy((fit,), ()), Energy((fit,), (count,)), Energy((form,), ()))
    for energy in energies:
        reason = duality_gap(energy, {"x": jnp.zeros(4)})
        assert isinstance(reason, str)
        certificate = judge(gap(reason), 1e-6, Need.PROOF)
        assert certificate.verdict is Verdict.ABSENT
        assert reason in certificate.sentence


def test_a_point_outside_the_domain_has_an_infinite_gap() -> None:
    """Outside its box a point has no energy, and no gap passes."""
    matrix = Dense(jnp.eye(4), (4,), (4,))
    box = Box(one(0.0), one(1.0))
    energy = _energy(matrix, np.ones(4), box, Identity((4,), "float64"), 1.0)
    found = gap(duality_gap(energy, {"x": jnp.full(4, 2.0)}))

    assert judge(found, 1e-6, Need.PROOF).verdict is Verdict.FAIL


def test_a_float32_problem_is_certified_as_it_ran() -> None:
    """The energy of a float32 flow is evaluated in float64, with its own rounded data."""
    matrix = Dense(jnp.asarray(np.eye(4), "float32"), (4,), (4,))
    seen = jnp.asarray([0.1, 0.5, 1, 2], "float32")
    fit = SmoothTerm(jnp.float32(1), Squared(seen), {"x": matrix})
    l1 = NonsmoothTerm(
        jnp.float32(0.1), L1(jnp.float32(1)), Identity((4,), "float32"), variable="x"
    )
    energy = Energy((fit,), (l1,))
    solution = jnp.maximum(seen - jnp.float32(0.1), 0)
    found = duality_gap(energy, {"x": solution})

    assert isinstance(found, Gap)
    assert found.value < 1e-6


def test_strong_convexity_bounds_distance_and_energy() -> None:
    """|G|/gamma and |G|^2/(2 gamma) hold at every step, and need a proved gamma."""
    rng = np.random.default_rng(SEED)
    energy = _energy(
        Dense(jnp.asarray(rng.normal(size=(20, 8)) / 4), (8,), (20,)),
        rng.normal(size=20),
        L1(one(1.0)),
        Identity((8,), "float64"),
        0.1,
    )
    gamma = gamma_low(hessians(energy, {"x": jnp.zeros(8)}))
    best = solved(energy)
    at_best = float(energy.value({"x": jnp.asarray(best)}))
    x = jnp.asarray(rng.normal(size=8))
    for _ in range(30):
        alpha = 0.1
        g = energy.grad_f({"x": x})["x"]
        after = energy.nonsmooth[0].penalty.prox(x - alpha * g, one(alpha * 0.1))
        mapping = float(jnp.linalg.norm(x - after)) / alpha
        fall = float(energy.value({"x": x}) - energy.value({"x": after}))
        far, high = distance(mapping, gamma), strong_gap(mapping, gamma, fall)
        assert far is not None
        assert high is not None
        assert far >= float(np.linalg.norm(np.asarray(after) - best)) - 1e-9
        assert high >= float(energy.value({"x": x})) - at_best - 1e-12
        x = after

    assert strong_gap(1.0, gamma_low(hessians(_lasso(rng), {"x": jnp.zeros(32)})), 0.0) is None
    assert judge(kkt(1e-9, 1.0, 0.1, 2.0), 1e-5, Need.PROOF).verdict is Verdict.PASS
    assert judge(kkt(1e-2, 1.0, 0.1, 2.0), 1e-5, Need.PROOF).verdict is Verdict.FAIL
