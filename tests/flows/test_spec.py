"""A specification is understood or refused with every problem, and compiles to what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import pywt
from scipy import optimize

from temporal_fabric.errors import RequestRejected
from temporal_fabric.flows import advance, compile_flow, read_spec, read_spec_file, run_flow_step
from temporal_fabric.flows.telemetry import COLUMNS, rows_of
from temporal_fabric.flows.wavelets import Wavelet

EXAMPLES = Path(__file__).parents[2] / "examples"
WRONG = """
state:
  x: {shape: [30, 32], initial: nothing}
  r: {shape: [3], manifold: so3}
operators:
  blur: {type: fft_convolution}
  loop: {type: sum, parts: [loop, blurr]}
terms:
  - {type: quadratic, operator: blurr, target: y}
  - {type: wavelet_l1, wavelet: db5, levels: 5, weight: -1}
  - {type: tv, wieght: 2}
  - {type: huber}
flow: {family: accelerated}
"""
SMALL = """
name: small
state: {x: {shape: [16], initial: seen, invariants: {mass: {kind: sum}}}}
data:
  truth: {type: normal, shape: [16], seed: 3}
  seen: {type: observed, source: truth, operator: blur, noise: 0.1}
operators: {blur: {type: separable_convolution, sigma: 0.6, radius: 2}}
terms:
  - {type: quadratic, operator: blur, target: seen}
  - {type: wavelet_l1, wavelet: haar, levels: 3, weight: 0.05}
flow: {family: FAMILY}
"""
TOML = """
state.x = {shape = [2], initial = "b"}
terms = [{type = "quadratic", target = "b"}, {type = "l1", weight = 0.5}]
data.b = {type = "values", values = [2.0, 0.25]}
"""
ATOMS = {
    "atoms": [
        {
            "type": "quadratic",
            "params": {"A": np.eye(2), "b": [1.0, 2.0]},
            "weight": 1.0,
            "variable": "x",
        },
        {"type": "l1", "params": {"lambda": 0.1}, "weight": 0.5, "variable": "x"},
    ],
    "state": {"x": {"shape": [2]}},
    "initial_state": {"x": [10.0, 5.0]},
    "num_iterations": 100,
    "step_alpha": 0.1,
    "flow_name": "sparse_reconstruction",
    "run_id": "run_001",
}


def _atoms() -> dict[str, Any]:
    """Return the seed's dictionary with its array as a list, as a file would have it."""
    plain: dict[str, Any] = {**ATOMS, "atoms": [dict(atom) for atom in ATOMS["atoms"]]}  # type: ignore[attr-defined]
    plain["atoms"][0]["params"] = {"A": [[1.0, 0.0], [0.0, 1.0]], "b": [1.0, 2.0]}
    return plain


def test_every_problem_is_reported_at_once() -> None:
    """Wrong names, shapes, values and families come together, each with its place and line."""
    with pytest.raises(RequestRejected) as refused:
        read_spec(WRONG)
    found = {(problem.code, problem.path) for problem in refused.value.problems}

    assert found >= {
        ("E_FLOW", "/state/x/initial"),
        ("E_FLOW", "/state/r/shape"),
        ("E_FLOW", "/operators/blur"),
        ("E_FLOW", "/operators/loop/parts"),
        ("E_FLOW", "/operators/loop/parts/1"),
        ("E_FLOW", "/terms/0/operator"),
        ("E_FLOW", "/terms/0/target"),
        ("E_RANGE", "/terms/1/weight"),
        ("E_RANGE", "/terms/1/wavelet"),
        ("E_FLOW", "/terms/1/levels"),
        ("E_UNKNOWN_FIELD", "/terms/2/wieght"),
        ("E_FLOW", "/terms/2"),
        ("E_FLOW", "/terms/3"),
        ("E_FLOW", "/flow/family"),
    }
    assert all(problem.line for problem in refused.value.problems)


@pytest.mark.parametrize("body", ["", "[1]", "{", "state: {x: {shape: [2]}}"])
def test_nonsense_is_refused(body: str) -> None:
    """Nothing, a list, broken text and a specification without terms raise the same error."""
    with pytest.raises(RequestRejected):
        read_spec(body)


def test_toml_says_the_same() -> None:
    """A TOML file is read by its ending, and minimises to the soft threshold of its data."""
    compiled = compile_flow(read_spec(TOML, source="flow.toml"))
    chunk = advance(compiled, iterations=400, sample_every=400)

    np.testing.assert_allclose(chunk.carry.z["x"], [1.5, 0], atol=1e-12)
    with pytest.raises(RequestRejected, match="TOML"):
        read_spec("= 1", source="flow.toml")


@pytest.mark.parametrize("body", [ATOMS, _atoms()])
def test_the_seeds_dictionary_loads_unchanged(body: dict[str, Any]) -> None:
    """Atoms with parameters, initial state and iterations mean what they meant."""
    spec = read_spec(body)
    chunk = advance(compile_flow(spec), iterations=400, sample_every=400)

    assert spec.budget.iterations == 100
    np.testing.assert_allclose(chunk.carry.z["x"], [0.95, 1.95], atol=1e-10)


def test_the_seeds_terms_load_unchanged() -> None:
    """Terms with a slot as their target: the slot that nothing moves is data."""
    spec = read_spec(
        {
            "terms": [
                {"type": "quadratic", "op": "I", "weight": 1.0, "variable": "x", "target": "y"}
            ],
            "state": {"shapes": {"x": [3], "y": [3]}},
            "initial_state": {"x": [0.0, 0.0, 0.0], "y": [1.0, 2.0, 3.0]},
        }
    )
    chunk = advance(compile_flow(spec), iterations=300, sample_every=300)

    assert list(spec.state) == ["x"]
    np.testing.assert_allclose(chunk.carry.z["x"], [1, 2, 3], atol=1e-9)


def test_families_reach_one_optimum() -> None:
    """Plain, accelerated, preconditioned and primal-dual flows of one file agree."""
    energies = []
    for family in (
        "proximal",
        "accelerated",
        "primal_dual",
        "preconditioned, preconditioner: jacobi",
    ):
        compiled = compile_flow(read_spec(SMALL.replace("FAMILY", family)))
        chunk = advance(compiled, iterations=1500, sample_every=500)
        energies.append(float(chunk.rows["E"][-1]))

        assert chunk.worst_violation <= 1
        assert chunk.worst_curvature <= 1
    np.testing.assert_allclose(energies, energies[0], rtol=1e-9)


def test_one_step_is_the_seeds() -> None:
    """`run_flow_step` is the prox of a gradient step, with the compiled lens or another."""
    compiled = compile_flow(read_spec(SMALL.replace("FAMILY", "proximal")))
    x = compiled.start["x"]
    moved = x - 0.5 * compiled.energy.grad_f({"x": x})["x"]
    other = Wavelet("db4", 1, (16,), "float64")
    for given, lens in ((None, compiled.W["x"]), (other, other)):
        u = np.asarray(lens.matvec(moved))
        expected = lens.adjoint(jnp.asarray(np.sign(u) * np.maximum(np.abs(u) - 0.025, 0)))

        np.testing.assert_allclose(run_flow_step(x, compiled, 0.5, given), expected, atol=1e-13)
        assert set(run_flow_step({"x": x}, compiled, 0.5, given)) == {"x"}
    direction = {"x": jnp.ones(16)}
    np.testing.assert_allclose(compiled.L_apply(direction)["x"], 1, atol=1e-12)


def test_telemetry_has_the_seeds_columns() -> None:
    """All 23 columns are there; what does not apply is null, and never NaN."""
    compiled = compile_flow(read_spec(SMALL.replace("FAMILY", "proximal")))
    rows = rows_of(
        advance(compiled, iterations=4, sample_every=2), compiled, run_id="r", phase="GREEN"
    )

    assert list(rows)[:23] == list(COLUMNS)
    assert rows["iter"] == [2, 4]
    assert rows["lens_name"] == ["haar", "haar"]
    assert rows["lambda"] == [0.05, 0.05]
    assert rows["phi_residual"] == [None, None]
    assert all(isinstance(drift, float) for drift in rows["invariant_drift_max"])


def test_declared_physics_is_measured() -> None:
    """Equations that the result should satisfy have a residual in every row."""
    body = SMALL.replace("FAMILY", "proximal") + "physics: {flat: {operator: slope}}\n"
    body = body.replace("operators: {", "operators: {slope: {type: gradient}, ")
    chunk = advance(compile_flow(read_spec(body)), iterations=2, sample_every=2)
    x = np.asarray(chunk.carry.z["x"])

    assert chunk.rows["phi_residual"].tolist() == pytest.approx([np.linalg.norm(np.diff(x))])
    with pytest.raises(RequestRejected, match="sloppe"):
        read_spec(body.replace("operator: slope", "operator: sloppe"))


def test_data_that_does_not_fit_is_refused_for_every_term() -> None:
    """Shapes are known only with the data; then each term says what is wrong."""
    body = {
        "state": {"x": {"shape": [4]}},
        "data": {
            "b": {"type": "values", "values": [1.0, 2.0]},
            "c": {"type": "values", "values": "x"},
        },
        "terms": [{"type": "quadratic", "target": "b"}, {"type": "tikhonov", "target": "c"}],
        "flow": {"family": "gradient"},
    }
    with pytest.raises(RequestRejected) as refused:
        compile_flow(read_spec(body))

    assert [problem.path for problem in refused.value.problems] == [
        "/terms/0/target",
        "/data/c/values",
    ]


def test_nonnegative_least_squares_agrees_with_scipy() -> None:
    """A flow with a dense matrix and x >= 0 ends where scipy's active-set solver does."""
    generator = np.random.default_rng(5)
    a, b = generator.normal(size=(12, 6)), generator.normal(size=12)
    body = {
        "state": {"x": {"shape": [6]}},
        "data": {"a": {"type": "values", "values": a}, "b": {"type": "values", "values": b}},
        "operators": {"A": {"type": "dense", "matrix": "a"}},
        "terms": [
            {"type": "quadratic", "operator": "A", "target": "b"},
            {"type": "nonnegativity"},
        ],
        "flow": {"family": "accelerated"},
    }
    body["data"] = {k: {**v, "values": v["values"].tolist()} for k, v in body["data"].items()}  # type: ignore[attr-defined]
    chunk = advance(compile_flow(read_spec(body)), iterations=600, sample_every=600)

    np.testing.assert_allclose(chunk.carry.z["x"], optimize.nnls(a, b)[0], atol=1e-8)


def test_a_rotation_flow_stays_on_its_manifold() -> None:
    """A slot on SO(3) starts at a random rotation and ends at the nearest one to its target."""
    body = """
state: {r: {shape: [3, 3], manifold: so3}}
data: {m: {type: values, values: [[0.0, -1.1, 0.0], [0.9, 0.0, 0.1], [0.0, 0.0, 1.2]]}}
terms: [{type: quadratic, variable: r, target: m}]
certification: {profile: manifold}
"""
    compiled = compile_flow(read_spec(body))
    chunk = advance(compiled, iterations=400, sample_every=400)
    u, _, vt = np.linalg.svd([[0.0, -1.1, 0.0], [0.9, 0.0, 0.1], [0.0, 0.0, 1.2]])

    np.testing.assert_allclose(chunk.carry.z["r"], u @ vt, atol=1e-6)


@pytest.mark.parametrize("name", ["deblur", "psf_strict", "wide_blur", "wide_blur_noreg"])
def test_examples_are_read(name: str) -> None:
    """The examples lint clean."""
    assert read_spec_file(EXAMPLES / f"{name}.yaml").name == name


def test_the_photograph_gains() -> None:
    """Deblurring the example's photograph lowers the energy and gains at least 2 dB in 60 steps."""
    compiled = compile_flow(read_spec_file(EXAMPLES / "deblur.yaml"))
    chunk = advance(compiled, iterations=60, sample_every=20)
    with np.load(Path(pywt.__path__[0]) / "data" / "camera.npz") as stored:
        photo = stored[stored.files[0]] / 255.0
    photo = photo.reshape(256, 2, 256, 2).mean((1, 3))

    def psnr(x: Any) -> float:
        return float(-10 * np.log10(np.mean((np.asarray(x) - photo) ** 2)))

    assert compiled.beta.value == pytest.approx(1, abs=1e-12)
    assert chunk.worst_violation <= 1
    assert psnr(chunk.carry.z["x"]) > psnr(compiled.start["x"]) + 2


def test_importing_the_package_loads_no_jax() -> None:
    """`import temporal_fabric.flows` is free, and so is that of the whole fabric."""
    code = "import sys, temporal_fabric, temporal_fabric.flows; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"
