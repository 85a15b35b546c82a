"""Policies act: what lens, sparsity, gap_dial and polish ask for is what runs, or is refused."""

from __future__ import annotations

import itertools
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from temporal_fabric.errors import RequestRejected
from temporal_fabric.flows import compile_flow, load_run, load_run_manifest, run_certified
from temporal_fabric.flows.adjusting import lambda_of
from temporal_fabric.flows.checkpoint import Checkpoint
from temporal_fabric.flows.commands import Advance, Polish
from temporal_fabric.flows.lens_choice import probed, ranked, seeds, universal_lambda
from temporal_fabric.flows.reading import read_spec
from temporal_fabric.flows.remedies import Settings
from temporal_fabric.flows.reports import Polished
from tests.flows.test_runs import SPEC, session, small

if TYPE_CHECKING:
    from pathlib import Path

STEPS = np.repeat([0.0, 1.0, -1.0, 2.0], 16)
"""A signal of four constants: eight coefficients of Haar, and many of db4."""

WAVES = np.sin(np.linspace(0, 2 * np.pi, 64, endpoint=False)) + 2
LENSES: dict[str, Any] = {
    "candidates": [{"type": "db4", "levels": 3}, {"type": "haar", "levels": 3}]
}


def seen(values: Any, **changes: Any) -> Any:
    """Return the small flow with other data, seen through nothing."""
    data = {"seen": {"type": "values", "values": list(values)}}
    terms = [{"type": "quadratic", "target": "seen"}, SPEC["terms"][1]]
    return small(**{"data": data, "operators": {}, "terms": terms} | changes)


def events(folder: Path, name: str) -> list[dict[str, Any]]:
    """Return the payloads of a run's events of one name."""
    rows = load_run(folder)["events"].to_pylist()
    return [json.loads(row["payload"]) for row in rows if row["event"] == name]


@pytest.mark.parametrize(
    ("values", "best", "rule"),
    [
        (STEPS, "haar", "most_compressible"),
        (WAVES, "db4", "most_compressible"),
        (WAVES, "db4", "min_reconstruction_error"),
    ],
)
def test_the_lens_that_fits_is_taken(values: Any, best: str, rule: str) -> None:
    """Steps are sparse in Haar and waves in db4, by either rule."""
    spec = seen(values, lens=LENSES | {"rule": rule})
    probes = probed(spec, None)
    assert ranked(spec, probes)[0] == best
    assert all(0 <= x <= 1 for one in probes.values() for x in one.values())


def test_a_run_selects_its_lens(tmp_path: Path) -> None:
    """The lens that was probed best runs, stands in the manifest, and its probes in the events."""
    result = run_certified(seen(WAVES, lens=LENSES), out=tmp_path / "run")
    assert result.outcome == "SUCCEEDED"
    assert load_run_manifest(tmp_path / "run")["settings"]["lens"] == "db4"
    (selected,) = events(tmp_path / "run", "LENS_SELECTED")
    assert selected["lens"] == "db4"
    assert set(selected["probes"]["haar"]) == {"compressibility", "reconstruction_error"}
    assert {row["lens_name"] for row in load_run(tmp_path / "run")["telemetry"].to_pylist()} == {
        "db4"
    }


def test_scales_are_weighed_by_their_spread(tmp_path: Path) -> None:
    """Scales whose coefficients spread wider weigh less, by at most 2 a scale, and it runs so."""
    spec = seen(STEPS + 0.01 * WAVES, gap_dial={"per_scale_seed": "mad"})
    factors = seeds(compile_flow(spec))
    assert len(factors) == 4
    assert factors[-1] == 1.0
    assert all(0.5 <= a / b <= 2 for a, b in itertools.pairwise(factors))
    result = run_certified(spec, out=tmp_path / "run")
    assert result.outcome == "SUCCEEDED"
    row = load_run(tmp_path / "run")["telemetry"].to_pylist()[0]
    np.testing.assert_allclose(json.loads(row["lambda_j"]), np.multiply(0.05, factors))


def test_the_adaptive_rule_finds_the_noise(tmp_path: Path) -> None:
    """The tuner moves lambda to sigma sqrt(2 log n), with sigma from the data."""
    noise = 0.05 * np.random.default_rng(0).normal(size=256)
    spec = seen(
        np.repeat(STEPS, 4) + noise,
        state={"x": {"shape": [256], "initial": "seen"}},
        sparsity={"adaptive_rule": "mad"},
        budget={"iterations": 3000},
    )
    wanted = universal_lambda(compile_flow(spec))
    assert wanted == pytest.approx(0.05 * math.sqrt(2 * math.log(256)), rel=0.25)
    result = run_certified(spec, out=tmp_path / "run")
    assert result.outcome == "SUCCEEDED"
    factor = load_run_manifest(tmp_path / "run")["settings"]["lambdas"][0]
    assert lambda_of(spec) * factor == pytest.approx(wanted, rel=0.1)


def test_hard_thresholding_counts(tmp_path: Path) -> None:
    """Hard thresholding keeps large coefficients as they are, and needs the nonconvex profile."""
    hard = {"sparsity": {"thresholding": "hard"}, "flow": {"family": "proximal"}}
    spec = seen(STEPS, **hard, certification={"profile": "nonconvex"})
    result = run_certified(spec, out=tmp_path / "run")
    assert (result.outcome, result.verdict) == ("SUCCEEDED", "GREEN(nonconvex)")
    np.testing.assert_allclose(result.state["x"], STEPS, atol=1e-6)
    soft = run_certified(seen(STEPS), out=tmp_path / "soft")
    assert np.abs(soft.state["x"] - STEPS).max() > 1e-3


def test_the_penalty_of_a_policy_is_the_penalty_that_runs() -> None:
    """A tree in place of a wavelet's l1, and back: the energy is that of the other term."""
    _, rough = SPEC["terms"]
    tree = rough | {"type": "tree"}
    first = seen(WAVES).terms[0].model_dump()
    for policy, written, meant in (("tree", rough, tree), ("l1", tree, rough)):
        asked = compile_flow(seen(WAVES, terms=[first, written], sparsity={"penalty": policy}))
        plain = compile_flow(seen(WAVES, terms=[first, meant]))
        assert float(asked.g(asked.start)) == float(plain.g(plain.start))


IMPOSSIBLE: dict[str, dict[str, Any]] = {
    "lens/candidates/1": {"lens": {"candidates": [{"type": "haar"}, {"type": "haar"}]}},
    "lens/candidates/0": {"lens": {"candidates": [{"type": "fourier"}]}},
    "lens/probe_metrics": {"lens": LENSES | {"probe_metrics": ["reconstruction_error"]}},
    "sparsity/penalty": {"sparsity": {"penalty": "group_l1"}},
    "sparsity/thresholding": {"sparsity": {"penalty": "tree", "thresholding": "hard"}},
    "sparsity/adaptive_rule": {
        "sparsity": {"adaptive_rule": "mad"},
        "gap_dial": {"target_sparsity": 0.5},
    },
    "gap_dial/beta_estimator": {"gap_dial": {"beta_estimator": "power"}},
    "gap_dial/eta_max": {"gap_dial": {"eta_max": 0.5}},
    "gap_dial/gamma_min": {"gap_dial": {"gamma_min": 0.0}},
    "gap_dial/per_scale_seed": {
        "gap_dial": {"per_scale_seed": "mad"},
        "terms": [SPEC["terms"][0], {"type": "l1"}],
    },
    "sparsity": {"sparsity": {"thresholding": "hard"}, "terms": SPEC["terms"][:1]},
    "gap_dial": {"gap_dial": {"target_sparsity": 0.5}, "terms": SPEC["terms"][:1]},
    "lens": {"lens": LENSES, "terms": SPEC["terms"][:1]},
}


@pytest.mark.parametrize("place", IMPOSSIBLE)
def test_what_has_no_meaning_is_refused(place: str) -> None:
    """A policy that no term can follow is refused with E_FLOW, its place and what to do."""
    with pytest.raises(RequestRejected) as caught:
        read_spec(SPEC | IMPOSSIBLE[place])
    assert ("E_FLOW", f"/{place}") in {(one.code, one.path) for one in caught.value.problems}


def test_single_precision_is_polished_in_double(tmp_path: Path) -> None:
    """Float64 steps bring a float32 flow's gap below 1e-4, and the record says so."""
    spec = small(dtype="float32", flow={"family": "accelerated", "polish": 100})
    result = run_certified(spec, out=tmp_path / "run")
    assert result.outcome == "SUCCEEDED"
    assert str(result.state["x"].dtype) == "float64"
    gap = next(one for one in result.decisions["exit"].certificates if one.name == "gap")
    assert gap.bound == 1e-4
    assert gap.value is not None
    assert gap.value <= 1e-4
    assert load_run_manifest(tmp_path / "run")["polished"] is True
    assert load_run(tmp_path / "run")["telemetry"].to_pylist()[-1]["notes"] == "polish"
    kept = load_run(tmp_path / "run")["state"]["x"]
    assert (kept == result.state["x"]).all()


def test_a_smooth_flow_is_polished_by_leapfrog() -> None:
    """Without a prox F_Con makes the last steps, and the energy falls; a restored run has them."""
    terms = [SPEC["terms"][0], {"type": "tikhonov", "weight": 0.1}]
    spec = small(terms=terms, flow={"family": "gradient"})
    one = session(spec)
    one.answer(Advance(Settings(), 10))
    before = float(one.compiled.energy.value(one.carry.z))
    report = one.answer(Polish(Settings(), 60))
    assert isinstance(report, Polished)
    assert report.kept
    assert float(one.compiled.energy.value(one.carry.z)) < before
    other = session(spec)
    made = one.snapshot()
    other.restore(Checkpoint(made.dtype, made.meta, made.arrays))
    assert other.polished
    assert (other.carry.z["x"] == one.carry.z["x"]).all()


def test_a_polish_that_gains_nothing_is_not_kept() -> None:
    """At the minimum no step falls: the state stays as it was, bit for bit."""
    one = session(small(flow={"family": "proximal"}))
    one.answer(Advance(Settings(), 3000))
    before = one.carry.z["x"]
    report = one.answer(Polish(Settings(), 10))
    assert isinstance(report, Polished)
    assert not report.kept
    assert report.gate.opens
    assert report.exit.opens
    assert (one.carry.z["x"] == before).all()
