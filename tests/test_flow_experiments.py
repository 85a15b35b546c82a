"""Certified flows as experiments: the same result as in one process, under an experiment's life."""

from __future__ import annotations

import asyncio
import json
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np
import pytest
import yaml

from temporal_fabric import (
    Capsule,
    ExperimentCanceled,
    ExperimentFailed,
    Fabric,
    RequestRejected,
)
from temporal_fabric.capsule.queries import query
from temporal_fabric.capsule.report import report
from tests.flow_bodies import SMALL, InProcess, endless, flow, reaches

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from temporal_fabric.testing.environment import FabricEnvironment

pytestmark = pytest.mark.asyncio(loop_scope="module")

LONG = endless(1_000_000)


@pytest.fixture(scope="module")
def worker_env(jax_cache: Path) -> Mapping[str, str]:
    """Let the worker's JAX use it."""
    return {"JAX_COMPILATION_CACHE_DIR": str(jax_cache)}


async def test_same_result_as_in_one_process(fabric: Fabric, in_process: InProcess) -> None:
    """The same specification gives the same objective and the same bits, in a whole capsule."""
    expected = await asyncio.to_thread(in_process.run, SMALL)

    result = await (await fabric.submit(flow(SMALL))).result()

    outcome = result.attempts[-1].flow
    assert outcome is not None
    assert (outcome.sha256, outcome.energy) == (expected["sha256"], expected["energy"])
    assert (outcome.verdict, outcome.iteration) == ("GREEN(convex)", expected["iteration"])
    capsule = Capsule.open(result.capsule)
    assert capsule.verify() == []
    rows = query([capsule], 'SELECT iter, phase, "E", epoch FROM telemetry ORDER BY seq')[1]
    assert [row[0] for row in rows] == list(range(10, outcome.iteration + 1, 10))
    assert rows[-1][1:] == ["GREEN", pytest.approx(expected["energy"]), 1]
    told = [row[0] for row in query([capsule], "SELECT event FROM events ORDER BY seq")[1]]
    assert [name for name in told if name != "state"] == [
        "RUN_STARTED",
        "LENS_SELECTED",
        "FLOW_POLICY_APPLIED",
        "CERT_PASS",
        "CERT_PASS",
        "CERT_PASS",
        "RUN_FINISHED",
    ]
    page = report(capsule)
    assert all(word in page for word in ("Certificates", "gamma_low", "GREEN(convex)", ">E<"))


async def test_a_closed_gate_fails_with_its_table(environment: FabricEnvironment) -> None:
    """RED is FAILED(CERT_FAIL) and 100; every certificate stands beside its bound."""
    body = flow(SMALL | {"certification": {"profile": "strict"}}, retry={"max_attempts": 3})
    file = environment.home / "red.yaml"
    file.write_text(yaml.safe_dump(body))

    done = await asyncio.to_thread(environment.cli, "submit", "--follow", str(file))
    status = await asyncio.to_thread(environment.cli, "status", str(body["id"]))

    assert done.returncode == 100
    for shown in (done.stdout, status.stdout):
        line = next(line for line in shown.splitlines() if "eta_dd" in line)
        assert line.split()[-3:] == ["0.9", "R", "FAIL"]
        assert "RED(strict)" in shown
    assert "CERT_FAIL" in done.stderr
    assert "mu >= " in done.stderr


async def test_every_problem_is_told_before_anything_runs(
    fabric: Fabric, environment: FabricEnvironment
) -> None:
    """A bad specification is refused by `validate` and `submit` alike: 2, and all its problems."""
    terms = [SMALL["terms"][0] | {"operator": "nothing"}, SMALL["terms"][1] | {"levels": 9}]
    settings = {"policy": {"family": "primal_dual"}, "certificates": {"tolerances": {"no": 1.0}}}
    bad = flow(SMALL | {"terms": terms}, settings=settings)
    by_file = bad | {"payload": {"flow": {"spec": str(environment.home / "bad-spec.yaml")}}}
    (environment.home / "bad-spec.yaml").write_text(yaml.safe_dump(SMALL | {"terms": terms}))
    for body, verbs in ((bad, ("validate", "submit")), (by_file, ("validate", "submit"))):
        file = environment.home / "bad.yaml"
        file.write_text(yaml.safe_dump(body))
        for verb in verbs:
            done = await asyncio.to_thread(environment.cli, verb, str(file))
            assert done.returncode == 2
            assert "/payload/flow/energy/terms/0/operator" in done.stderr
            assert "/payload/flow/energy/terms/1/levels" in done.stderr
    assert bad["id"] not in {status.request_id for status in await fabric.list()}


async def test_a_specification_in_a_file_is_brought_along(
    environment: FabricEnvironment, in_process: InProcess
) -> None:
    """A request that names a file, with settings over it, runs as what it then says."""
    (environment.home / "spec.yaml").write_text(yaml.safe_dump(SMALL))
    body = flow(SMALL)
    body["payload"]["flow"] = {
        "spec": str(environment.home / "spec.yaml"),
        "policy": {"family": "proximal"},
    }
    file = environment.home / "named.yaml"
    file.write_text(yaml.safe_dump(body))
    expected = await asyncio.to_thread(in_process.run, SMALL | {"flow": {"family": "proximal"}})

    done = await asyncio.to_thread(environment.cli, "submit", "--follow", str(file), "-o", "json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["attempts"][0]["flow"]["sha256"] == expected["sha256"]


async def test_a_redacted_flow_keeps_figures_only(
    fabric: Fabric, environment: FabricEnvironment, in_process: InProcess, tmp_path: Path
) -> None:
    """Neither capsule nor host keep arrays, pictures, checkpoints or files, whatever the end."""
    np.save(tmp_path / "seen.npy", np.linspace(0.0, 1.0, 64))
    data = {"seen": {"type": "file", "path": str(tmp_path / "seen.npy")}}
    private = {"settings": {"redact_artifacts": True}}
    wanted = {"redact_artifacts": True, "outputs": [{"source_path": "summary.json"}]}
    done = await fabric.submit(flow(SMALL | {"data": data}, settings=wanted))
    stopped = await fabric.submit(flow(LONG | {"data": data}, **private))
    bad = flow(SMALL, settings=wanted | {"outputs": [{"source_path": "/output/x.npy"}]})
    with pytest.raises(RequestRejected) as refused:
        await fabric.submit(bad)
    result = await done.result()
    await reaches(stopped, 100)
    await stopped.cancel()
    with pytest.raises(ExperimentCanceled) as caught:
        await stopped.result()

    capsules = [Capsule.open(str(uri)) for uri in (result.capsule, caught.value.result["capsule"])]
    went_on = await asyncio.to_thread(
        in_process.refused, "resume", str(capsules[1].folder), "--out", str(tmp_path / "on")
    )
    for capsule in capsules:
        names = {PurePath(entry.path) for entry in capsule.manifest.files}
        assert {name.suffix for name in names} == {".json", ".jsonl", ".log", ".parquet", ".toml"}
        assert capsule.manifest.experiment["redact_artifacts"] is True
        assert capsule.verify() == []
    told = json.loads((capsules[0].folder / "artifacts/summary.json").read_text())
    assert 0 < told["statistics"]["x"]["norm"] < 64
    assert not (environment.home / "runs" / "default" / stopped.id).exists()
    (problem,) = refused.value.problems
    assert problem.code == "E_CONFLICT"
    assert problem.path == "/payload/flow/outputs/0/source_path"
    assert "redact_artifacts" in went_on


async def test_paused_and_resumed(fabric: Fabric, in_process: InProcess) -> None:
    """A paused flow stands between two chunks, and goes on to the same bits."""
    spec = endless(4_000)
    expected = await asyncio.to_thread(in_process.run, spec)
    handle = await fabric.submit(flow(spec))
    await reaches(handle, 100)

    paused = await handle.pause()
    before = (await handle.status()).live["iteration"]
    await asyncio.sleep(1)
    after = (await handle.status()).live["iteration"]
    await handle.resume()
    with pytest.raises(ExperimentFailed) as caught:
        await handle.result()

    assert (paused.state, before) == ("PAUSED", after)
    assert caught.value.reason == "CERT_FAIL"
    assert caught.value.result["attempts"][-1]["flow"]["sha256"] == expected["sha256"]
    states = [moment["state"] for moment in caught.value.result["timeline"]]
    assert states[states.index("RUNNING") :] == [
        "RUNNING",
        "PAUSED",
        "RUNNING",
        "COLLECTING",
        "FAILED",
    ]


async def test_cancelled_with_a_checkpoint(
    fabric: Fabric, in_process: InProcess, tmp_path: Path
) -> None:
    """A cancelled flow keeps its last good checkpoint, and `flow resume` comes to the same bits."""
    spec = endless(4_000)
    expected = await asyncio.to_thread(in_process.run, spec)
    handle = await fabric.submit(flow(spec))
    made = await reaches(handle, 200)

    await handle.cancel()
    with pytest.raises(ExperimentCanceled) as caught:
        await handle.result()
    capsule = Capsule.open(caught.value.result["capsule"])
    went_on = await asyncio.to_thread(
        in_process.answer, "resume", str(capsule.folder), "--out", str(tmp_path / "on")
    )

    assert capsule.result["attempts"][-1]["flow"]["iteration"] >= made
    assert capsule.verify() == []
    events = query([capsule], "SELECT event FROM events WHERE event <> 'state' ORDER BY seq")[1]
    assert [row[0] for row in events][-2:] == ["CANCELLED", "RUN_FINISHED"]
    assert (went_on["sha256"], went_on["iteration"]) == (expected["sha256"], 4_000)


@pytest.mark.parametrize("limit", ["budget", "wall", "deadline"])
async def test_out_of_time(fabric: Fabric, limit: str) -> None:
    """A budget, a wall limit and a deadline end a flow in its middle, its checkpoint kept."""
    bodies = {
        "budget": flow(LONG, settings={"budgets": {"wall_s": 1}}),
        "wall": flow(LONG, limits={"wall_s": 1}),
        "deadline": flow(LONG, deadline=6),
    }
    handle = await fabric.submit(bodies[limit])

    with pytest.raises(ExperimentFailed) as caught:
        await handle.result()

    assert caught.value.reason == "TIMEOUT"
    outcome = caught.value.result["attempts"][-1]["flow"]
    assert 0 < outcome["iteration"] < LONG["budget"]["iterations"]
    kept = [entry.path for entry in Capsule.open(caught.value.result["capsule"]).manifest.files]
    assert any(path.endswith(".ckpt") for path in kept)


async def test_a_terminated_flow_is_ended_with_its_experiment(fabric: Fabric) -> None:
    """Temporal's own button ends the flow's workflow too, and the host seals what there is."""
    handle = await fabric.submit(flow(LONG))
    await reaches(handle, 100)
    running = (await handle.status(detail=False)).flow

    await handle.workflow.terminate("by hand")
    async with asyncio.timeout(40):
        while "record" not in (status := await handle.status()).sources:
            await asyncio.sleep(0.2)

    described = await fabric.client.get_workflow_handle(running).describe()
    assert described.status is not None
    assert described.status.name == "TERMINATED"
    assert (status.state, status.reason) == ("FAILED", "LOST")
    assert Capsule.open(status.capsule).verify() == []
