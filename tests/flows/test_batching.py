"""Many flows at once end as each would alone, and one that fails takes none with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from temporal_fabric.capsule.reading import Capsule
from temporal_fabric.errors import RequestRejected
from temporal_fabric.flows import compile_flow, load_run, run_batch, run_certified
from temporal_fabric.flows.chunk import Job, run_chunks
from temporal_fabric.flows.reading import read_spec
from tests.flows.test_runs import SPEC

if TYPE_CHECKING:
    from pathlib import Path


def member(seed: int, **changes: Any) -> dict[str, Any]:
    """Return a small flow with data of its own."""
    truth = {"type": "normal", "shape": [64], "seed": seed}
    rough = SPEC["terms"][1] | {"weight": 0.02 * (seed + 1)}
    return SPEC | {
        "data": SPEC["data"] | {"truth": truth},
        "terms": [SPEC["terms"][0], rough],
        **changes,
    }


def test_chunks_of_one_shape_are_one_program() -> None:
    """Three jobs in one program end where each ends alone, to rounding, with rows of their own."""
    flows = [compile_flow(read_spec(member(seed))) for seed in range(3)]
    jobs = [
        Job(one.scheme, one.problem, one.scheme.init(one.problem, one.start), one.observables)
        for one in flows
    ]
    assert len({one.shape for one in jobs}) == 1
    together = run_chunks(jobs, iterations=60, sample_every=20)
    for job, found in zip(jobs, together, strict=True):
        alone = job.run(60, 20)
        np.testing.assert_allclose(found.carry.z["x"], alone.carry.z["x"], rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(found.rows["E"], alone.rows["E"], rtol=1e-12)
        assert found.rows["iter"].tolist() == [20, 40, 60]
        assert found.worst_violation <= 1


def test_a_batch_agrees_with_its_members(tmp_path: Path) -> None:
    """Five flows of one shape end at their own states, and leave capsules."""
    specs = [member(seed) for seed in range(5)]
    results = run_batch(specs, out=tmp_path / "batch")
    assert len(results) == 5
    for number in (0, 4):
        alone = run_certified(specs[number], out=tmp_path / f"alone-{number}")
        result = results[number]
        assert (result.outcome, result.verdict) == (alone.outcome, alone.verdict)
        assert result.iteration == alone.iteration
        np.testing.assert_allclose(result.state["x"], alone.state["x"], rtol=1e-10, atol=1e-12)
        assert Capsule.open(result.folder).verify() == []
        rows = [load_run(one.folder)["telemetry"].to_pylist() for one in (result, alone)]
        assert len(rows[0]) == len(rows[1])


def test_a_member_that_fails_fails_alone(tmp_path: Path) -> None:
    """A refused flow and one of another shape run beside the others, each to its own end."""
    wide = {"blur": {"type": "separable_convolution", "sigma": 3.0}}
    other = SPEC["data"] | {"truth": {"type": "normal", "shape": [32], "seed": 9}}
    specs = [
        member(1),
        member(2, operators=wide, certification={"profile": "strict"}),
        member(3, data=other, state={"x": {"shape": [32], "initial": "seen"}}),
        member(4),
    ]
    results = run_batch(specs, out=tmp_path / "batch")
    assert [one.outcome for one in results] == ["SUCCEEDED", "FAILED", "SUCCEEDED", "SUCCEEDED"]
    assert results[1].verdict == "RED(strict)"
    assert results[2].state["x"].shape == (32,)


def test_a_batch_with_a_problem_writes_nothing(tmp_path: Path) -> None:
    """One specification that cannot be read refuses the batch before a folder is made."""
    with pytest.raises(RequestRejected):
        run_batch([member(1), {"state": {}}], out=tmp_path / "batch")
    assert not (tmp_path / "batch").exists()


def test_no_batch_is_an_empty_batch(tmp_path: Path) -> None:
    """Nothing to run ends at once."""
    assert run_batch([], out=tmp_path) == []
