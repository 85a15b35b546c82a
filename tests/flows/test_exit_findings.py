"""What a run finds out about its result, beside the gap: each is computed, judged and kept."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
import pytest

from temporal_fabric.errors import RequestRejected
from temporal_fabric.flows import compile_flow, run_certified
from temporal_fabric.flows.energy import SmoothTerm
from temporal_fabric.flows.losses import Squared
from temporal_fabric.flows.reading import read_spec
from temporal_fabric.flows.refining import check_mesh, coarsened
from tests.flows.test_runs import SPEC

if TYPE_CHECKING:
    from pathlib import Path

    from temporal_fabric.flows.running import RunResult

RIDGE = SPEC | {
    "terms": [SPEC["terms"][0], {"type": "tikhonov", "weight": 0.1}],
    "state": {"x": {"shape": [64]}},
}


def value(result: RunResult, name: str) -> float:
    """Return the value of a certificate in the record that the capsule keeps."""
    kept = json.loads((result.folder / "certificates.json").read_text())
    found = [one for one in kept["exit"]["certificates"] if one["name"] == name]
    assert len(found) == 1
    return float(found[0]["value"])


@pytest.mark.parametrize(("tolerance", "outcome"), [(0.5, "SUCCEEDED"), (1e-4, "FAILED")])
def test_physics(tolerance: float, outcome: str, tmp_path: Path) -> None:
    """Equations that the result misses by more than their tolerance cost it its claim."""
    equations = {"operator": "blur", "target": "seen", "tolerance": tolerance}
    spec = SPEC | {"physics": {"p": equations}, "budget": {"iterations": 300}}
    result = run_certified(spec, out=tmp_path / "run")
    assert result.outcome == outcome
    fit = compile_flow(read_spec(SPEC)).energy.smooth[0]
    assert isinstance(fit, SmoothTerm)
    assert isinstance(fit.loss, Squared)
    seen = np.asarray(fit.loss.target)
    apart = np.asarray(fit.operators["x"].matvec(jnp.asarray(result.state["x"]))) - seen
    missed = float(np.linalg.norm(apart) / np.linalg.norm(seen))
    assert value(result, "physics") == pytest.approx(missed / tolerance, rel=1e-9)


@pytest.mark.parametrize(("noise", "outcome"), [(0.05, "SUCCEEDED"), (0.02, "FAILED")])
def test_holdout(noise: float, outcome: str, tmp_path: Path) -> None:
    """Held-out data are explained up to the noise that was said, and a wrong noise is told."""
    seen = {"type": "observed", "source": "flat", "noise": 0.05}
    weights = [1e-6, *[1.0] * 6]
    spec = {
        "data": {
            "flat": {"type": "constant", "shape": [512], "value": 1.0},
            "seen": seen | {"seed": 1},
            "unseen": seen | {"seed": 2},
        },
        "state": {"x": {"shape": [512]}},
        "terms": [
            {"type": "quadratic", "target": "seen"},
            {"type": "wavelet_l1", "levels": 6, "weight": 0.3, "scale_weights": weights},
        ],
        "holdout": {"later": {"target": "unseen", "noise": noise}},
        "certification": {"profile": "convex"},
        "budget": {"iterations": 200},
        "sample_every": 10,
    }
    result = run_certified(spec, out=tmp_path / "run")
    assert result.outcome == outcome
    assert (value(result, "holdout") <= 1) == (outcome == "SUCCEEDED")


def _wave(n: int) -> list[float]:
    """Return the means of a smooth function over n intervals."""
    edges = np.linspace(0, 2 * np.pi, n + 1)
    return list(np.diff(-np.cos(edges)) / np.diff(edges))


def smoothing(**changes: Any) -> dict[str, Any]:
    """Return |u - f|^2 + mu |u'|^2 on a periodic line: its discretisation is of second order."""
    return {
        "data": {"f": {"type": "values", "values": _wave(64)}},
        "operators": {"slope": {"type": "gradient", "boundary": "periodic"}},
        "state": {"u": {"shape": [64], "initial": "f"}},
        "terms": [
            {"type": "quadratic", "variable": "u", "target": "f"},
            {"type": "quadratic", "variable": "u", "operator": "slope", "weight": 300.0},
        ],
        "flow": {"family": "accelerated"},
        "certification": {"profile": "convex", "refinement_test": True},
        "sample_every": 10,
        **changes,
    }


def test_refinement(tmp_path: Path) -> None:
    """The energy on three meshes falls together with second order, and with no other."""
    result = run_certified(smoothing(), out=tmp_path / "run")
    assert (result.outcome, value(result, "refinement") <= 1) == ("SUCCEEDED", True)
    wrong = {"profile": "convex", "refinement_test": True, "refinement_order": 4.0}
    result = run_certified(smoothing(certification=wrong), out=tmp_path / "wrong")
    assert result.outcome == "FAILED"
    assert "expected 4" in result.message


def test_a_coarser_mesh_is_the_same_problem() -> None:
    """Means of data, half a sigma, one level less, and weights by the power of the mesh width."""
    spec = read_spec(
        SPEC
        | {
            "data": SPEC["data"] | {"truth": {"type": "normal", "shape": [64, 64]}},
            "state": {"x": {"shape": [64, 64], "initial": "seen"}},
            "certification": {"profile": "convex", "refinement_test": True},
        }
    )
    coarse = coarsened(spec, None, 2)
    assert coarse.state["x"].shape == (32, 32)
    assert coarse.operators["blur"].sigma == 0.35  # type: ignore[union-attr]
    quadratic, rough = coarse.terms
    assert (quadratic.weight, rough.weight) == (4.0, 0.1)
    assert rough.levels == 2  # type: ignore[union-attr]


def test_what_has_no_mesh_is_refused(tmp_path: Path) -> None:
    """A matrix means nothing on another mesh: the specification is refused with its place."""
    matrix = {"type": "values", "values": np.eye(64).tolist()}
    spec = smoothing(
        data={"f": {"type": "values", "values": _wave(64)}, "A": matrix},
        operators={"slope": {"type": "dense", "matrix": "A"}},
    )
    with pytest.raises(RequestRejected, match="/operators/slope"):
        check_mesh(read_spec(spec), None)
    result = run_certified(spec, out=tmp_path / "run")
    assert (result.reason, result.verdict) == ("REFUSED", "RED(convex)")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_hamiltonian_flow_comes_to_rest(dtype: str, tmp_path: Path) -> None:
    """Damped leapfrog ends at the minimiser under its own profile, with every check of it."""
    spec = RIDGE | {
        "dtype": dtype,
        "flow": {"family": "hamiltonian_damped", "friction": 0.6},
        "certification": {"profile": "hamiltonian"},
    }
    result = run_certified(spec, out=tmp_path / "run")
    assert (result.outcome, result.verdict) == ("SUCCEEDED", "GREEN(hamiltonian)")
    assert "the energy error is of order dt^2" in result.decisions["exit"].claims
    for name in ("kkt", "rest"):
        assert value(result, name) <= 1e-5
    for name in ("energy_order", "reversal"):
        assert value(result, name) <= 1
    plain = run_certified(RIDGE | {"flow": {"family": "accelerated"}}, out=tmp_path / "plain")
    np.testing.assert_allclose(result.state["x"], plain.state["x"], atol=1e-5)


def test_a_flow_on_the_sphere(tmp_path: Path) -> None:
    """The least eigenvector under the manifold profile: stationary, feasible, and it says so."""
    matrix = np.diag(np.arange(1.0, 9.0))
    spec = {
        "data": {"Q": {"type": "values", "values": matrix.tolist()}},
        "operators": {"Q": {"type": "dense", "matrix": "Q"}},
        "state": {"x": {"shape": [8], "manifold": "sphere"}},
        "terms": [{"type": "quadratic", "operator": "Q"}],
        "certification": {"profile": "manifold"},
        "sample_every": 10,
    }
    result = run_certified(spec, out=tmp_path / "run")
    assert (result.outcome, result.verdict) == ("SUCCEEDED", "GREEN(manifold)")
    assert value(result, "kkt") <= 1e-5
    assert value(result, "feasibility") <= 1e-6
    assert abs(result.state["x"][0]) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("outcome", "iterations"), [("SUCCEEDED", 500), ("FAILED", 4)])
def test_an_exact_fit(outcome: str, iterations: int, dtype: str, tmp_path: Path) -> None:
    """Where data are explained to the last digit, a gap is small beside theirs."""
    spec = {
        "data": SPEC["data"]
        | {
            "seen": {"type": "observed", "source": "truth", "operator": "blur"},
            "far": {"type": "values", "values": [1e3] * 64},
        },
        "operators": SPEC["operators"],
        "state": {"x": {"shape": [64], "initial": "far"}},
        "terms": [
            {"type": "quadratic", "target": "truth"},
            {"type": "quadratic", "operator": "blur", "target": "seen"},
        ],
        "flow": {"family": "gradient"},
        "certification": {"profile": "strongly_convex"},
        "budget": {"iterations": iterations},
        "dtype": dtype,
    }
    result = run_certified(read_spec(spec), out=tmp_path / "run")
    assert result.outcome == outcome
    assert (value(result, "gap") <= 1e-2) == (outcome == "SUCCEEDED")
