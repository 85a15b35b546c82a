"""What the seed family's own engine gets wrong when it is run, each as a run of this one."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from temporal_fabric.flows import load_run, load_run_manifest, run_certified
from temporal_fabric.flows.telemetry import CHECKS, COLUMNS
from tests.flows.test_runs import SPEC
from tests.flows.test_spec import ATOMS

if TYPE_CHECKING:
    from pathlib import Path


def form(diagonal: list[float], profile: str, **changes: Any) -> dict[str, Any]:
    """Return x'Qx/2 + |x|_1 for a diagonal Q, which a matrix does not say to be one."""
    return {
        "data": {"Q": {"type": "values", "values": np.diag(diagonal).tolist()}},
        "operators": {"Q": {"type": "dense", "matrix": "Q"}},
        "state": {"x": {"shape": [len(diagonal)]}},
        "terms": [{"type": "quadratic_form", "operator": "Q"}, {"type": "l1", "weight": 0.1}],
        "certification": {"profile": profile},
        **changes,
    }


@pytest.mark.parametrize("profile", ["strict", "strongly_convex"])
@pytest.mark.parametrize("least", [0.0, -1e-7])
def test_a_singular_or_indefinite_operator(least: float, profile: str, tmp_path: Path) -> None:
    """diag(0, 1, ...) and diag(-1e-7, 1, ...) are never GREEN where gamma has to be positive."""
    result = run_certified(form([least, 1.0, 2.0, 3.0], profile), out=tmp_path / "run")
    assert (result.verdict, result.reason) == (f"RED({profile})", "CERT_FAIL")
    assert "gamma_low" in result.decisions["before"].failing


def test_an_indefinite_operator_is_not_convex(tmp_path: Path) -> None:
    """A least eigenvalue of -1e-7 closes the convex gate too."""
    result = run_certified(form([-1e-7, 1.0, 2.0], "convex"), out=tmp_path / "run")
    assert result.verdict == "RED(convex)"


def test_descent_counts_g(tmp_path: Path) -> None:
    """Started where f is least, E falls and f rises: that is a right step, and it is taken."""
    spec = {
        "data": {"y": {"type": "values", "values": [3.0, -2.0, 0.05]}},
        "state": {"x": {"shape": [3], "initial": "y"}},
        "terms": [{"type": "quadratic", "target": "y"}, {"type": "l1", "weight": 0.1}],
        "flow": {"family": "proximal"},
    }
    result = run_certified(spec, out=tmp_path / "run")
    assert (result.outcome, result.verdict) == ("SUCCEEDED", "GREEN(strict)")
    np.testing.assert_allclose(result.state["x"], [2.9, -1.9, 0.0], atol=1e-6)


def test_a_remedy_changes_what_the_certificate_depends_on(tmp_path: Path) -> None:
    """Gamma lacks: mu is added, as far as is allowed, and no step is halved for it."""
    spec = SPEC | {
        "data": SPEC["data"] | {"truth": {"type": "normal", "shape": [64], "seed": 3}},
        "operators": {"blur": {"type": "separable_convolution", "sigma": 2.0}},
    }
    asked = {"profile": "strongly_convex"}
    refused = run_certified(spec | {"certification": asked}, out=tmp_path / "refused")
    assert refused.decisions["before"].failing == ("gamma_low",)
    allowed = spec | {"certification": asked | {"mu_max": 1e-3}}
    result = run_certified(allowed, out=tmp_path / "run")
    assert (result.outcome, result.verdict) == ("SUCCEEDED", "GREEN(strongly_convex)")
    settings = load_run_manifest(tmp_path / "run")["settings"]
    assert 1e-7 < settings["mu"] <= 1e-3
    assert settings["halvings"] == 0


def test_wavelet_l1_with_a_target_in_two_dimensions(tmp_path: Path) -> None:
    """The seed's terms with a slot as their target, on an image: it is soft thresholding."""
    y = np.kron([[4.0, 0.0], [0.0, -4.0]], np.ones((4, 4)))
    spec = {
        "terms": [
            {"type": "quadratic", "op": "I", "weight": 1.0, "variable": "x", "target": "y"},
            {"type": "wavelet_l1", "weight": 0.5, "variable": "x", "wavelet": "haar", "levels": 2},
        ],
        "state": {"shapes": {"x": [8, 8], "y": [8, 8]}},
        "initial_state": {"x": np.zeros((8, 8)), "y": y},
    }
    result = run_certified(spec, out=tmp_path / "run")
    assert result.outcome == "SUCCEEDED"
    # Two coefficients of 4 * 4, each made smaller by lambda.
    np.testing.assert_allclose(result.state["x"], y * (16 - 0.5) / 16, atol=1e-3)


def test_the_dictionary_form_runs_unchanged(tmp_path: Path) -> None:
    """A run of the seed's documented dictionary ends, GREEN under the strict gate."""
    result = run_certified(ATOMS, out=tmp_path / "run")
    assert (result.outcome, result.verdict) == ("SUCCEEDED", "GREEN(strict)")
    np.testing.assert_allclose(result.state["x"], [0.95, 1.95], atol=1e-3)
    assert load_run_manifest(tmp_path / "run")["flow_name"] == "sparse_reconstruction"


STRINGS = (
    "run_id flow_name phase trial_id lambda_j warnings notes lens_name sparsity_mode flow_family"
)
INTEGERS = "iter level_active_max"
FLOATS = (
    "t_wall_ms alpha lambda E grad_norm eta_dd gamma sparsity_wx metric_ber"
    " invariant_drift_max phi_residual"
)
EVERYTHING = SPEC | {
    "terms": [
        SPEC["terms"][0],
        SPEC["terms"][1] | {"scale_weights": [1.0, 1.0, 0.8, 0.6]},
    ],
    "physics": {"p": {"operator": "blur", "target": "seen", "tolerance": 10.0}},
    "multiscale": {"mode": "fixed_schedule", "every": 5},
    "gap_dial": {"target_sparsity": 0.8},
    "budget": {"iterations": 2000, "trials": 2},
}
NOTHING = {
    "data": {"y": {"type": "normal", "shape": [8]}},
    "state": {"x": {"shape": [8]}},
    "terms": [{"type": "quadratic", "target": "y"}],
    "flow": {"family": "gradient"},
}
NEVER = {"metric_ber", "warnings"}
"""A bit error rate and warnings are columns of the seed that nothing here fills."""


def test_the_columns_are_the_seeds(tmp_path: Path) -> None:
    """23 columns of the seed's names and types, in one table that its readers can query."""
    types = dict.fromkeys(STRINGS.split(), "string")
    types |= dict.fromkeys(INTEGERS.split(), "int64")
    types |= dict.fromkeys(FLOATS.split(), "double")
    run_certified(EVERYTHING, out=tmp_path / "run")
    table = load_run(tmp_path / "run")["telemetry"]
    found = {field.name: str(field.type) for field in table.schema}
    assert {name: found[name] for name in COLUMNS} == types
    rows = table.to_pylist()
    _is_filled(rows, set(COLUMNS) - NEVER - {"trial_id", "notes"}, NEVER)
    assert {row["trial_id"] for row in rows} > {None, "1"}
    assert [len(json.loads(row["lambda_j"])) for row in rows] == [4] * len(rows)


def test_what_does_not_apply_is_null(tmp_path: Path) -> None:
    """A plain quadratic has neither lambda nor lens nor scales nor residuals: all null."""
    run_certified(NOTHING, out=tmp_path / "run")
    rows = load_run(tmp_path / "run")["telemetry"].to_pylist()
    empty = {"lambda", "lambda_j", "sparsity_wx", "phi_residual", "invariant_drift_max"}
    empty |= {"lens_name", "level_active_max", "sparsity_mode", "trial_id", "notes"} | NEVER
    _is_filled(rows, set(COLUMNS) - empty, empty)


def _is_filled(rows: list[dict[str, Any]], full: set[str], empty: set[str]) -> None:
    assert rows
    for row in rows:
        assert {name for name in empty if row[name] is not None} == set()
        assert {name for name in full | set(CHECKS) if row[name] is None} == set()
        numbers = [value for value in row.values() if isinstance(value, float)]
        assert all(math.isfinite(value) for value in numbers)
