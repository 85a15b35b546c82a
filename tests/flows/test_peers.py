"""Certified runs beside solvers that know nothing of them: the same objective, within the gap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
import pymanopt
import pytest
from pymanopt.manifolds import SpecialOrthogonalGroup, Sphere
from pymanopt.optimizers import ConjugateGradient
from sklearn.linear_model import Lasso

from temporal_fabric.flows import compile_flow, run_certified
from temporal_fabric.flows.reading import read_spec
from tests.flows.parts import matrix_of
from tests.flows.test_gap import solved

if TYPE_CHECKING:
    from pathlib import Path

    from temporal_fabric.flows.running import RunResult

PHOTO = {"type": "file", "package": "pywt.data", "path": "camera.npz", "divide": 255.0}
QUADRATIC = {"type": "quadratic", "operator": "A", "target": "seen"}


def noisy(source: str, operator: str = "A") -> dict[str, Any]:
    """Return data that an operator makes of others, with noise."""
    return {"type": "observed", "source": source, "operator": operator, "noise": 0.02, "seed": 2}


def normal(*shape: int, seed: int) -> dict[str, Any]:
    """Return Gaussian data."""
    return {"type": "normal", "shape": list(shape), "seed": seed, "scale": 0.3}


PROBLEMS: dict[str, dict[str, Any]] = {
    "total variation": {
        "data": {"photo": PHOTO | {"shrink": 64}, "seen": noisy("photo", "identity")},
        "state": {"x": {"shape": [8, 8], "initial": "seen"}},
        "terms": [QUADRATIC | {"operator": "identity"}, {"type": "tv", "weight": 0.1}],
        "flow": {"family": "primal_dual"},
    },
    "compressed sensing": {
        "data": {
            "photo": PHOTO | {"shrink": 64},
            "kept": {"type": "values", "values": (np.indices((8, 8)).sum(0) % 3 > 0).tolist()},
            "seen": noisy("photo"),
        },
        "operators": {"A": {"type": "mask", "entries": "kept"}},
        "state": {"x": {"shape": [8, 8]}},
        "terms": [QUADRATIC, {"type": "wavelet_l1", "levels": 3, "weight": 0.02}],
    },
    "lasso": {
        "data": {"M": normal(20, 32, seed=1), "seen": normal(20, seed=3)},
        "operators": {"A": {"type": "dense", "matrix": "M"}},
        "state": {"x": {"shape": [32]}},
        "terms": [QUADRATIC, {"type": "l1", "weight": 0.05}],
    },
    "group lasso": {
        "data": {"M": normal(20, 32, seed=1), "seen": normal(20, seed=3)},
        "operators": {"A": {"type": "dense", "matrix": "M"}},
        "state": {"x": {"shape": [8, 4]}},
        "terms": [QUADRATIC, {"type": "group_l1", "axes": [1], "weight": 0.05}],
    },
}


def run(spec: dict[str, Any], out: Path) -> RunResult:
    """Run a flow until its gap is 1e-7."""
    asked = {"profile": "convex", "tolerances": {"gap": 1e-7}}
    defaults = {"flow": {"family": "accelerated"}, "certification": asked, "sample_every": 100}
    return run_certified(defaults | {"budget": {"iterations": 20000}} | spec, out=out)


def agrees(result: RunResult, best: float) -> None:
    """The objective is a solver's to 1e-6, and the gap is never below what is missing."""
    assert result.outcome == "SUCCEEDED", result.message
    assert result.energy is not None
    assert result.energy == pytest.approx(best, rel=1e-6)
    gap = next(one for one in result.decisions["exit"].certificates if one.name == "gap")
    assert gap.value is not None
    assert gap.value * result.energy >= result.energy - best


@pytest.mark.parametrize("name", list(PROBLEMS))
def test_an_interior_point_solver_agrees(name: str, tmp_path: Path) -> None:
    """Clarabel, given the same energy as a cone program, ends at the same objective."""
    result = run(PROBLEMS[name], tmp_path / "run")
    compiled = compile_flow(read_spec(PROBLEMS[name]))
    x = jnp.asarray(solved(compiled.energy)).reshape(compiled.start["x"].shape)
    agrees(result, float(compiled.energy.value({"x": x})))


def test_coordinate_descent_agrees_on_a_photograph(tmp_path: Path) -> None:
    """Deblurring a photograph with l1 of wavelets, by scikit-learn in the wavelet's basis."""
    spec = {
        "data": {"photo": PHOTO | {"shrink": 16}, "seen": noisy("photo")},
        "operators": {"A": {"type": "separable_convolution", "sigma": 0.7}},
        "state": {"x": {"shape": [32, 32], "initial": "seen"}},
        "terms": [QUADRATIC, {"type": "wavelet_l1", "wavelet": "db4", "levels": 2, "weight": 0.01}],
    }
    result = run(spec, tmp_path / "run")
    compiled = compile_flow(read_spec(spec))
    fit: Any = compiled.energy.smooth[0]
    lens = compiled.energy.nonsmooth[0].operator
    seen = np.asarray(fit.loss.target).reshape(-1)
    columns = matrix_of(fit.operators["x"]) @ matrix_of(lens).T
    peer = Lasso(alpha=0.01 / seen.size, fit_intercept=False, tol=1e-10, max_iter=100_000)
    u = jnp.asarray(peer.fit(columns, seen).coef_).reshape(lens.out_shape)
    agrees(result, float(compiled.energy.value({"x": lens.adjoint(u)})))


def on_a_manifold(spec: dict[str, Any], out: Path) -> RunResult:
    """Run a flow under the profile of manifolds."""
    claims = {"profile": "manifold", "tolerances": {"kkt": 1e-8}}
    budget = {"iterations": 5000}
    return run_certified(
        {"certification": claims, "budget": budget, "sample_every": 100} | spec, out=out
    )


def _least(manifold: Any, cost: Any, gradient: Any, start: Any) -> float:
    wrapped = pymanopt.function.numpy(manifold)
    problem = pymanopt.Problem(manifold, wrapped(cost), euclidean_gradient=wrapped(gradient))
    solver = ConjugateGradient(verbosity=0, min_gradient_norm=1e-7)
    return float(solver.run(problem, initial_point=start).cost)


def test_pymanopt_agrees_on_the_sphere(tmp_path: Path) -> None:
    """|A x - y|^2 / 2 on the unit sphere."""
    rng = np.random.default_rng(4)
    matrix, y = rng.normal(size=(12, 6)) / 3, rng.normal(size=12)
    spec = {
        "data": {
            "M": {"type": "values", "values": matrix.tolist()},
            "seen": {"type": "values", "values": y.tolist()},
        },
        "operators": {"A": {"type": "dense", "matrix": "M"}},
        "state": {"x": {"shape": [6], "manifold": "sphere"}},
        "terms": [QUADRATIC],
    }
    result = on_a_manifold(spec, tmp_path / "run")
    start = np.asarray(compile_flow(read_spec(spec)).start["x"])
    best = _least(
        Sphere(6),
        lambda x: 0.5 * np.sum((matrix @ x - y) ** 2),
        lambda x: matrix.T @ (matrix @ x - y),
        start,
    )
    assert (result.outcome, result.verdict) == ("SUCCEEDED", "GREEN(manifold)")
    assert result.energy == pytest.approx(best, rel=1e-9)


def test_pymanopt_agrees_on_rotations(tmp_path: Path) -> None:
    """Wahba's problem: the rotation that turns points onto others, with noise."""
    rng = np.random.default_rng(5)
    points = rng.normal(size=(3, 10))
    turned = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turned *= np.linalg.det(turned)
    seen = turned @ points + 0.05 * rng.normal(size=(3, 10))
    act = np.kron(np.eye(3), points.T)
    spec = {
        "data": {
            "M": {"type": "values", "values": act.tolist()},
            "seen": {"type": "values", "values": seen.tolist()},
        },
        "operators": {"A": {"type": "dense", "matrix": "M", "out_shape": [3, 10]}},
        "state": {"r": {"shape": [3, 3], "manifold": "so3"}},
        "terms": [QUADRATIC | {"variable": "r"}],
    }
    result = on_a_manifold(spec, tmp_path / "run")
    best = _least(
        SpecialOrthogonalGroup(3),
        lambda r: 0.5 * np.sum((r @ points - seen) ** 2),
        lambda r: (r @ points - seen) @ points.T,
        turned,
    )
    assert (result.outcome, result.verdict) == ("SUCCEEDED", "GREEN(manifold)")
    assert result.energy == pytest.approx(best, rel=1e-9)
