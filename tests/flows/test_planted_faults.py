"""Every planted fault closes the gate, by the certificate that is meant for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from temporal_fabric.flows.certificates import hamiltonian, manifold, observed, steps
from temporal_fabric.flows.certificates.certify import Plan, certify
from temporal_fabric.flows.certificates.curvature import beta_up
from temporal_fabric.flows.certificates.decision import Decision, decide, propose
from temporal_fabric.flows.certificates.hessian import hessians
from temporal_fabric.flows.certificates.profiles import ProfileName, Scheme, Stage, profile_for
from temporal_fabric.flows.certificates.record import Finding, Kind, Need, Verdict, judge
from temporal_fabric.flows.certificates.refinement import refinement
from temporal_fabric.flows.convolutions import SeparableConvolution, gaussian_taps
from temporal_fabric.flows.differences import Gradient
from temporal_fabric.flows.energy import Energy, NonsmoothTerm, QuadraticForm, SmoothTerm
from temporal_fabric.flows.graph_wavelets import GraphWavelet, graph_wavelet
from temporal_fabric.flows.group_penalties import GroupL1
from temporal_fabric.flows.losses import Squared
from temporal_fabric.flows.operators import Dense, Diagonal, Identity, static
from temporal_fabric.flows.own_operators import OwnOperator
from temporal_fabric.flows.penalties import L1, Box
from temporal_fabric.flows.wavelets import Wavelet
from tests.flows.parts import ring
from tests.flows.spectra import one

if TYPE_CHECKING:
    from temporal_fabric.flows.operators import Operator

IMAGE = (16, 16)
LINT = Finding(name="lint", value=0.0, kind=Kind.RIGOROUS, method="given", found="no problem")


def _blur(sigma: float = 0.4, boundary: Any = "periodic") -> SeparableConvolution:
    taps = jnp.asarray(gaussian_taps(sigma, 4))
    return SeparableConvolution((taps, taps), IMAGE, boundary)


def _energy(operator: Operator, lens: Operator | None = None, penalty: Any = None) -> Energy:
    """Return least squares with l1 in a lens."""
    fit = SmoothTerm(one(1.0), Squared(jnp.ones(operator.out_shape)), {"x": operator}, name="fit")
    basis = Identity(operator.in_shape, "float64") if lens is None else lens
    l1 = L1(one(1.0)) if penalty is None else penalty
    return Energy((fit,), (NonsmoothTerm(one(0.1), l1, basis, variable="x", name="l1"),))


def _gate(
    energy: Energy, profile: ProfileName = ProfileName.STRONGLY_CONVEX, **more: Any
) -> Decision:
    """Certify a problem and decide, before the run."""
    (first, *_) = energy.smooth
    form = isinstance(first, QuadraticForm)
    shape = first.operator.in_shape if form else first.operators["x"].in_shape  # type: ignore[attr-defined]
    plan = Plan(scheme=Scheme.PROXIMAL, alpha=1.0)
    plan = replace(plan, **more)
    findings = (LINT, *certify(energy, {"x": jnp.zeros(shape)}, plan, seed=3))
    return decide(profile_for(profile, scheme=plan.scheme), findings, Stage.BEFORE)


def test_a_sound_problem_is_green() -> None:
    """A narrow blur with l1 of db4 opens even the strict gate, and that is what is proposed."""
    energy = _energy(_blur(), Wavelet("db4", 2, IMAGE, "float64"))
    plan = Plan(scheme=Scheme.PROXIMAL, alpha=1.0)
    found = (LINT, *certify(energy, {"x": jnp.zeros(IMAGE)}, plan, seed=3))
    proposed = propose(found, plan.scheme)

    assert _gate(energy, ProfileName.STRICT).name == "GREEN(strict)"
    assert proposed is not None
    assert proposed.name == "GREEN(strict)"


def test_a_wide_blur_is_refused_by_strict_and_taken_by_convex() -> None:
    """Sigma 3 without mu: dominance and curvature fail, and the remedy is named."""
    energy = _energy(_blur(3.0), Wavelet("db4", 2, IMAGE, "float64"))
    strict = _gate(energy, ProfileName.STRICT)

    assert strict.name == "RED(strict)"
    assert set(strict.failing) == {"eta_dd", "gamma_low"}
    assert "mu >=" in strict.sentences[0]
    assert _gate(energy, ProfileName.CONVEX).name == "GREEN(convex)"


def _cumulate(_: Any, x: Any) -> Any:
    return jnp.cumsum(x)


def _wrong(_: Any, y: Any) -> Any:
    return jnp.cumsum(y)


def _nearly(_: Any, y: Any) -> Any:
    right = jnp.cumsum(y[::-1])[::-1]
    return right.at[5].add(1e-5 * y[9])


@pytest.mark.parametrize("transpose", [_wrong, _nearly])
def test_a_wrong_adjoint(transpose: Any) -> None:
    """Caught by the adjoint test, also where one entry is off by 1e-5."""
    operator = OwnOperator(jnp.zeros(()), (32,), (32,), "float64", _cumulate, transpose)
    decision = _gate(_energy(operator), ProfileName.CONVEX, alpha=1e-3)

    assert "adjoint" in decision.failing


def test_an_own_operator_with_a_right_adjoint_is_convex() -> None:
    """Semidefinite by construction, on the strength of the adjoint test: a probable bound."""
    operator = OwnOperator(jnp.zeros(()), (32,), (32,), "float64", _cumulate)
    decision = _gate(_energy(operator), ProfileName.CONVEX, alpha=1e-3)

    assert decision.name == "GREEN(convex)"


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Broken:
    """A wavelet transform with its coefficients multiplied by something."""

    inner: Wavelet
    factor: Any
    frame: Any = static(default="orthonormal")
    frame_constant: float = static(default=1.0)

    @property
    def in_shape(self) -> tuple[int, ...]:
        return self.inner.in_shape

    @property
    def out_shape(self) -> tuple[int, ...]:
        return self.inner.out_shape

    @property
    def dtype(self) -> str:
        return self.inner.dtype

    def matvec(self, x: Any) -> Any:
        return self.factor * self.inner.matvec(x)

    def adjoint(self, y: Any) -> Any:
        return self.inner.adjoint(self.factor * y)

    def inverse(self, u: Any) -> Any:
        return self.inner.inverse(u)

    def levels_of(self) -> Any:
        return self.inner.levels_of()

    def facts(self) -> Any:
        return self.inner.facts()


@pytest.mark.parametrize("fault", ["a lost coefficient", "a scaled band", "a wrong constant"])
def test_a_transform_that_is_not_of_its_class(fault: str) -> None:
    """Caught by power steps on the defect; a probe of the energy sees no lost coefficient."""
    shape = (64, 64)
    inner = Wavelet("haar", 3, shape, "float64")
    factor = jnp.ones(shape)
    if fault == "a lost coefficient":
        factor = factor.at[17, 40].set(0.0)
        x = jax.random.normal(jax.random.key(1), shape, "float64")
        kept = jnp.sum((factor * inner.matvec(x)) ** 2) / jnp.sum(x**2)
        assert abs(float(kept) - 1) < 1e-3
    if fault == "a scaled band":
        factor = factor.at[32:, 32:].set(1 + 1e-5)
    broken = _Broken(inner, factor, frame_constant=2.0 if fault == "a wrong constant" else 1.0)
    identity = Identity(shape, "float64")

    assert _gate(_energy(identity, broken)).failing == ("transform",)


def test_a_redundant_frame() -> None:
    """Refused for a plain step as what it is, and caught where it is declared as another."""
    frame = graph_wavelet(ring(16), 3, "float64")
    energy = _energy(Identity((16,), "float64"), frame)

    class Lying(GraphWavelet):
        """Says that it is orthonormal."""

        frame: Any = "orthonormal"

    jax.tree_util.register_dataclass(Lying, ["laplacian", "coefficients"], ["largest", "defect"])
    lying = Lying(frame.laplacian, frame.coefficients, frame.largest, frame.defect)

    assert "transform" in _gate(energy).failing
    assert "transform" in _gate(_energy(Identity((16,), "float64"), lying)).failing


def test_edge_padding() -> None:
    """Repeating the edge lifts beta above the kernel's sum: caught by the bound of beta."""
    blur = _blur(2.0, "edge")
    decision = _gate(_energy(blur), ProfileName.CONVEX, alpha=1.9)
    beta = beta_up(hessians(_energy(blur), {"x": jnp.zeros(IMAGE)}))

    assert beta.value is not None
    assert beta.value > 1.05
    assert decision.failing == ("step",)


def _shrunk(penalty: Any, step: Any, u: Any) -> Any:
    return penalty.prox(u, step)


def test_a_preconditioner_with_the_plain_prox() -> None:
    """Caught by comparing the prox with the one in the metric; the right one passes."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(40, 16)) / 6
    energy = _energy(Dense(jnp.asarray(matrix), (16,), (40,)))
    metric = jnp.asarray(np.abs(matrix.T @ matrix).sum(1))
    l1 = energy.nonsmooth[0].penalty

    def decided(p: Any, step: Any) -> Decision:
        prox = Partial(_shrunk, l1, step)
        return _gate(energy, scheme=Scheme.PRECONDITIONED, metric=p, prox=prox)

    right = decided(metric, 0.1 / metric)
    plain = decided(metric, 0.1 / metric.max())
    short = decided(metric / 4, 0.4 / metric)

    assert right.name == "GREEN(strongly_convex)"
    assert plain.failing == ("prox_metric",)
    assert "preconditioner" in short.failing


def test_a_group_penalty_in_a_metric_that_varies() -> None:
    """There is no closed prox, so there is no value, and the gate stays closed."""
    energy = _energy(Identity((4, 4), "float64"), penalty=GroupL1(one(1.0), (1,)))
    metric = jnp.linspace(1.0, 2.0, 16).reshape(4, 4)
    decision = _gate(energy, scheme=Scheme.PRECONDITIONED, metric=metric, prox=jnp.asarray)

    assert decision.failing == ("prox_metric",)


def test_the_sphere_with_two_over_beta() -> None:
    """Caught by L_R, which counts the sphere's own bend."""
    energy = Energy(_energy(Dense(jnp.eye(8), (8,), (8,))).smooth, ())
    state = {"x": jnp.ones(8) / np.sqrt(8)}
    profile = profile_for(ProfileName.MANIFOLD, scheme=Scheme.GRADIENT)
    plan = Plan(
        scheme=Scheme.GRADIENT,
        alpha=1.8,
        curved=True,
        compact=frozenset({"x"}),
        gradient=1 + float(np.sqrt(8)),
    )
    flat = decide(profile, (LINT, *certify(energy, state, plan, seed=1)), Stage.BEFORE)
    short = replace(plan, alpha=0.3)
    curved = decide(profile, (LINT, *certify(energy, state, short, seed=1)), Stage.BEFORE)
    unknown = replace(plan, gradient=None)
    searched = (LINT, *certify(energy, state, unknown, seed=1), manifold.armijo(0.2))

    assert flat.failing == ("manifold_step",)
    assert curved.name == "GREEN(manifold)"
    assert decide(profile, searched, Stage.BEFORE).name == "GREEN(manifold)"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_none(bad: float) -> None:
    """NaN or infinity in the data is caught before anything is computed from it."""
    energy = _energy(_blur())
    (fit,) = energy.smooth
    assert isinstance(fit, SmoothTerm)
    holes = Squared(jnp.ones(IMAGE).at[3, 4].set(bad))
    decision = _gate(replace(energy, smooth=(replace(fit, loss=holes),)))

    assert "finite" in decision.failing


def test_an_energy_without_a_minimiser_is_not_green() -> None:
    """Missing data without any penalty, and total variation of data that see no constants."""
    holes = Diagonal(jnp.ones(IMAGE).at[3, 5].set(0.0))
    alone = Energy(_energy(holes).smooth, ())
    blind = _energy(Gradient((16,), "float64"), Gradient((16,), "float64"), GroupL1(one(1.0), (0,)))
    seen = _energy(_blur(3.0), Gradient(IMAGE, "float64"), GroupL1(one(1.0), (0,)))
    dual: dict[str, Any] = {"scheme": Scheme.PRIMAL_DUAL, "alpha": 0.1, "sigma": 0.1}

    assert _gate(alone, ProfileName.CONVEX).failing == ("existence",)
    assert _gate(blind, ProfileName.CONVEX, **dual).failing == ("existence",)
    assert _gate(seen, ProfileName.CONVEX, **dual).name == "GREEN(convex)"


def test_a_concave_energy_is_nonconvex_at_best() -> None:
    """-I in a box: red under every convex profile, green as what it is."""
    form = QuadraticForm(one(1.0), Diagonal(-jnp.ones(8)), jnp.zeros(8), variable="x")
    box = NonsmoothTerm(one(1.0), Box(one(-1.0), one(1.0)), Identity((8,), "float64"), variable="x")
    energy = Energy((form,), (box,))

    assert "gamma_low" in _gate(energy, ProfileName.CONVEX).failing
    assert _gate(energy, ProfileName.NONCONVEX).name == "GREEN(nonconvex)"
    assert _gate(Energy((form,), ()), ProfileName.NONCONVEX).failing == ("existence",)


def test_steps_that_are_too_long() -> None:
    """Plain, accelerated, primal-dual and Hamiltonian: each by its own condition."""
    energy = _energy(_blur())

    assert _gate(energy, alpha=1.95).failing == ("step",)
    assert _gate(energy, alpha=-1.0).failing == ("step",)
    assert _gate(energy, scheme=Scheme.ACCELERATED, alpha=1.1).failing == ("step",)
    tight: dict[str, Any] = {"scheme": Scheme.PRIMAL_DUAL, "sigma": 1.0}
    assert _gate(energy, alpha=0.6, **tight).name == "GREEN(strongly_convex)"
    assert _gate(energy, alpha=0.7, **tight).failing == ("primal_dual_step",)
    bare = Energy(energy.smooth, ())
    swing: dict[str, Any] = {"scheme": Scheme.HAMILTONIAN_DAMPED}
    assert _gate(bare, ProfileName.HAMILTONIAN, alpha=1.85, **swing).name == "GREEN(hamiltonian)"
    assert _gate(bare, ProfileName.HAMILTONIAN, alpha=1.99, **swing).failing == ("step",)


def test_too_much_momentum_for_a_weakly_convex_energy() -> None:
    """m^2 (1 + alpha l) <= 1: full momentum is caught, less passes."""
    form = QuadraticForm(one(1.0), Diagonal(jnp.asarray([1.0, -0.5])), jnp.zeros(2), variable="x")
    box = NonsmoothTerm(one(1.0), Box(one(-1.0), one(1.0)), Identity((2,), "float64"), variable="x")
    energy = Energy((form,), (box,))
    fast: dict[str, Any] = {"scheme": Scheme.ACCELERATED, "alpha": 0.9}

    assert _gate(energy, ProfileName.NONCONVEX, **fast).failing == ("momentum",)
    assert _gate(energy, ProfileName.NONCONVEX, momentum=0.8, **fast).name == "GREEN(nonconvex)"


def test_a_float32_flow_is_certified_in_float64() -> None:
    """The numbers of a float32 problem are taken as they are, and the bounds in float64."""
    taps = jnp.asarray(gaussian_taps(0.4, 4), "float32")
    blur = SeparableConvolution((taps, taps), IMAGE, "periodic")
    fit = SmoothTerm(jnp.float32(1), Squared(jnp.ones(IMAGE, "float32")), {"x": blur})
    lens = Wavelet("haar", 2, IMAGE, "float32")
    l1 = NonsmoothTerm(jnp.float32(0.1), L1(jnp.float32(1)), lens, variable="x")
    plan = Plan(scheme=Scheme.PROXIMAL, alpha=1.0)
    state = {"x": jnp.zeros(IMAGE, "float32")}
    found = certify(Energy((fit,), (l1,)), state, plan, seed=1, dtype="float32")
    profile = profile_for(ProfileName.STRONGLY_CONVEX, dtype="float32")

    assert decide(profile, (LINT, *found), Stage.BEFORE).name == "GREEN(strongly_convex)"


@pytest.mark.parametrize(
    ("finding", "verdict"),
    [
        (observed.invariants([observed.Drift("mass", 5.0, 5.0 + 1e-13)], 100, "float64"), "HELD"),
        (observed.invariants([observed.Drift("mass", 5.0, 5.1)], 100, "float64"), "FAIL"),
        (observed.invariants([observed.Drift("mass", 5.0, 5.1, 0.05)], 1, "float64"), "HELD"),
        (
            observed.invariants(
                [observed.Drift("mass", 5.0, np.nan), observed.Drift("charge", 1.0, 1.0)],
                1,
                "float64",
            ),
            "FAIL",
        ),
        (observed.physics(1e-3, 1e-2), "HELD"),
        (observed.physics(np.nan, 1e-2), "FAIL"),
        (observed.holdout(110.0, 100, 1.0), "HELD"),
        (observed.holdout(50.0, 100, 1.0), "FAIL"),
        (observed.holdout(200.0, 100, 1.0), "FAIL"),
        (refinement(1.16, 1.04, 1.01, order=2.0, tolerance=0.02), "HELD"),
        (refinement(1.3, 1.2, 1.11, order=2.0, tolerance=0.02), "FAIL"),
        (refinement(1.0, 1.0, 1.0, order=2.0, tolerance=0.02), "HELD"),
        (hamiltonian.energy_order(4e-3, 1e-3), "HELD"),
        (hamiltonian.energy_order(2e-3, 1e-3), "FAIL"),
        (hamiltonian.reversal(1e-15, 1.0, 100, "float64"), "HELD"),
        (hamiltonian.reversal(1e-9, 1.0, 100, "float64"), "FAIL"),
    ],
)
def test_what_is_measured_keeps_or_closes_the_gate(finding: Finding, verdict: str) -> None:
    """A measurement within its tolerance holds, beyond it fails, and never passes as a proof."""
    assert judge(finding, 1.0, Need.WATCH).verdict.value == verdict
    assert judge(finding, 1.0, Need.PROOF).verdict is not Verdict.PASS


def test_rest_and_feasibility_are_facts_of_the_state() -> None:
    """What is left of the momentum, and the distance to the manifold, at the end."""
    assert judge(hamiltonian.rest(1e-7, 1.0, 4.0), 1e-5, Need.PROOF).verdict is Verdict.PASS
    assert judge(hamiltonian.rest(1e-3, 1.0, 4.0), 1e-5, Need.PROOF).verdict is Verdict.FAIL
    assert judge(manifold.feasibility(1e-9, 1.0), 1e-6, Need.PROOF).verdict is Verdict.PASS
    assert judge(manifold.feasibility(1e-3, 1.0), 1e-6, Need.PROOF).verdict is Verdict.FAIL


def test_without_beta_no_step_is_safe() -> None:
    """No bound of the curvature: the step has no value, whatever it is."""
    nothing = Finding(
        name="beta_up", value=None, kind=Kind.PROBABLE, delta=1e-6, method="none", found="none"
    )
    for finding in (
        steps.step(1e-9, nothing),
        steps.primal_dual_step(0.1, 0.1, 1.0, nothing),
        steps.primal_dual_step(0.1, 0.1, None, replace(nothing, value=1.0)),
        steps.manifold_step(0.1, nothing, gradient=1.0),
    ):
        assert judge(finding, 1.0, Need.PROOF).verdict is Verdict.ABSENT
