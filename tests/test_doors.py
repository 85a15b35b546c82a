"""Every door: Temporal's own command line, Schedules, and Temporal's own buttons."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import (
    DeleteWorkflowExecutionRequest,
    ResetWorkflowExecutionRequest,
)

from temporal_fabric import Capsule, ExperimentFailed, RequestRejected
from temporal_fabric.names import request_of
from temporal_fabric.requests import admit
from temporal_fabric.schedules import Schedules
from temporal_fabric.states import State
from tests.bodies import REPORTER, shell

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from temporal_fabric.client import Fabric
    from temporal_fabric.handle import ExperimentHandle
    from temporal_fabric.testing.environment import FabricEnvironment
    from temporal_fabric.testing.evidence import EvidenceLedger

pytestmark = pytest.mark.asyncio(loop_scope="module")


def _temporal(environment: FabricEnvironment, *args: str) -> subprocess.CompletedProcess[str]:
    assert environment.server is not None
    return subprocess.run(
        [str(environment.server.cli), *args, "--address", environment.address],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _start(environment: FabricEnvironment, workflow_id: str, *inputs: str) -> None:
    options = [part for text in inputs for part in ("--input", text)]
    done = _temporal(
        environment,
        "workflow",
        "start",
        "--type",
        "Experiment",
        "--task-queue",
        "fabric",
        "--workflow-id",
        workflow_id,
        *options,
    )
    assert done.returncode == 0, done.stderr


async def _until(handle: ExperimentHandle, wanted: Callable[[Any], bool]) -> None:
    deadline = time.monotonic() + 30
    while not wanted(status := await handle.status()):
        assert time.monotonic() < deadline, status
        await asyncio.sleep(0.1)


async def test_temporal_starts_an_experiment(
    fabric: Fabric, environment: FabricEnvironment
) -> None:
    """A plain JSON body through Temporal's command line runs; id and tenant come from its id."""
    body = {"payload": {"process": {"command": ["/bin/echo", "hello"]}}}
    _start(environment, "experiment/lab-7/by-hand", json.dumps(body))

    result = await fabric.get("by-hand", "lab-7").result()

    assert (result.tenant, result.request_id, result.state) == ("lab-7", "by-hand", "SUCCEEDED")
    assert Capsule.open(result.capsule).verify() == []


async def test_temporal_and_status_tell_the_same_story(
    fabric: Fabric, environment: FabricEnvironment
) -> None:
    """`temporal workflow show` and describe name the states, backend and capsule of `status`."""
    handle = await fabric.submit(shell("true"))
    await handle.result()
    status = await handle.status()

    shown = _temporal(environment, "workflow", "show", "--workflow-id", handle.workflow_id)
    described = _temporal(
        environment, "workflow", "describe", "--workflow-id", handle.workflow_id, "-o", "json"
    )
    metadata = _temporal(environment, "workflow", "metadata", "--workflow-id", handle.workflow_id)

    assert "COMPLETED" in shown.stdout
    assert status.capsule in shown.stdout
    assert '"SUCCEEDED"' in shown.stdout
    attributes = json.loads(described.stdout)["workflowExecutionInfo"]["searchAttributes"]
    assert "FabricState" in attributes["indexedFields"]
    assert "**SUCCEEDED**" in metadata.stdout
    assert status.backend in metadata.stdout


@pytest.mark.parametrize(
    ("name", "inputs", "code"),
    [
        ("nothing", [], "E_TYPE"),
        ("null", ["null"], "E_TYPE"),
        ("number", ["5"], "E_TYPE"),
        ("list", ["[1,2]"], "E_TYPE"),
        ("text", ['"hello"'], "E_TYPE"),
        ("empty", ["{}"], "E_MISSING"),
        ("other-id", ['{"id": "x", "payload": {"process": {"command": ["true"]}}}'], "E_CONFLICT"),
        ("two", ['{"payload": {}}', '{"payload": {}}'], "E_TYPE"),
    ],
)
async def test_a_bad_direct_start_fails_with_the_code(
    fabric: Fabric, environment: FabricEnvironment, name: str, inputs: list[str], code: str
) -> None:
    """Nonsense fails the run with its code and all problems; it never wedges it."""
    _start(environment, f"experiment/default/bad-{name}", *inputs)

    with pytest.raises(RequestRejected) as caught:
        await asyncio.wait_for(fabric.get(f"bad-{name}").result(), 30)

    assert code in {problem.code for problem in caught.value.problems}
    assert await fabric.record("default", f"bad-{name}").digest() is None  # type: ignore[union-attr]


async def test_a_strange_workflow_id_is_refused(
    fabric: Fabric, environment: FabricEnvironment
) -> None:
    """A workflow id that names no tenant and id cannot carry an experiment without them."""
    body = {"payload": {"process": {"command": ["true"]}}}
    _start(environment, "my-own-id", json.dumps(body))

    from temporalio.client import WorkflowFailureError  # noqa: PLC0415

    with pytest.raises(WorkflowFailureError):
        await fabric.client.get_workflow_handle("my-own-id").result()


async def test_three_firings_are_three_experiments(fabric: Fabric) -> None:
    """A Schedule that fires three times gives three experiments with three capsules."""
    admission = admit(shell("echo fired") | {"id": "often"})
    schedules = Schedules(fabric.client)
    await schedules.create("often", admission, every=timedelta(seconds=1))

    deadline = time.monotonic() + 30
    fired: list[Any] = []
    while len(fired) < 3:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.3)
        found = await fabric.list(query="WorkflowId STARTS_WITH 'experiment/default/often-'")
        fired = [status for status in found if status.state == "SUCCEEDED"]
    await schedules.delete("often")

    ids = {status.request_id for status in fired}
    capsules = {status.capsule for status in fired}
    assert len(ids) == len(capsules) == len(fired)
    for status in fired[:3]:
        handle = await fabric.find(status.request_id)
        result = await handle.result()
        assert result.request_id == request_of(status.workflow_id)[1]
        assert Capsule.open(result.capsule).verify() == []


async def test_schedule_commands(environment: FabricEnvironment, tmp_path: Path) -> None:
    """Create paused, list, trigger, pause, resume, backfill and delete from the command line."""
    path = tmp_path / "nightly.json"
    path.write_text(json.dumps(shell("true") | {"id": "nightly"}))
    cli = environment.cli

    created = cli("schedule", "create", "nightly", str(path), "--cron", "0 3 * * *", "--paused")
    twice = cli("schedule", "create", "nightly", str(path), "--every", "60")
    nonsense = cli("schedule", "create", "other", str(path), "--cron", "not a time")
    listed = json.loads(cli("schedule", "list", "-o", "json").stdout)
    done = [
        cli("schedule", "resume", "nightly"),
        cli("schedule", "trigger", "nightly"),
        cli("schedule", "pause", "nightly", "--note", "holidays"),
        cli("schedule", "backfill", "nightly", "2026-01-01T00:00:00Z", "2026-01-02T12:00:00Z"),
    ]
    deadline = time.monotonic() + 20
    while len(json.loads(cli("list", "-o", "json").stdout)) < 3 and time.monotonic() < deadline:
        await asyncio.sleep(0.3)
    ids = {entry["request_id"] for entry in json.loads(cli("list", "-o", "json").stdout)}
    deleted = cli("schedule", "delete", "nightly")
    gone = cli("schedule", "trigger", "nightly")

    assert created.returncode == 0, created.stderr
    assert (twice.returncode, nonsense.returncode) == (2, 2)
    assert [entry["paused"] for entry in listed if entry["id"] == "nightly"] == [True]
    assert [step.returncode for step in done] == [0, 0, 0, 0], [step.stderr for step in done]
    assert {"nightly-20260101t030000z", "nightly-20260102t030000z"} <= ids
    assert (deleted.returncode, gone.returncode) == (0, 102)


async def test_after_deletion_the_recorded_result_answers(fabric: Fabric) -> None:
    """Deleted from the server, submitted again: the recorded result, without a second run."""
    body = shell("date +%s%N > $FABRIC_OUTPUT_DIR/when")
    handle = await fabric.submit(body)
    first = await handle.result()
    await fabric.client.workflow_service.delete_workflow_execution(
        DeleteWorkflowExecutionRequest(
            namespace="default",
            workflow_execution=WorkflowExecution(workflow_id=handle.workflow_id),
        )
    )
    while True:
        try:
            await handle.workflow.describe()
        except Exception:  # noqa: BLE001 - gone is what is waited for
            break
        await asyncio.sleep(0.1)

    again = await (await fabric.submit(body)).result()

    assert again == first
    with pytest.raises(RequestRejected, match="E_CONFLICT"):
        await fabric.submit(body | {"priority": 1})


async def test_retry_continues_the_epochs(fabric: Fabric, tmp_path: Path) -> None:
    """A retry is a new run of the same request under the next epoch, with its own capsule."""
    body = shell(f"test -e {tmp_path}/now || exit 4")
    handle = await fabric.submit(body)
    with pytest.raises(ExperimentFailed) as failed:
        await handle.result()

    (tmp_path / "now").touch()
    again = await fabric.submit(body)
    with pytest.raises(ExperimentFailed):
        await again.result()  # submitting again is no retry
    await handle.retry()
    result = await handle.result()

    assert (failed.value.result["epoch"], result.epoch) == (1, 2)
    assert result.capsule != failed.value.result["capsule"]
    assert Capsule.open(failed.value.result["capsule"]).verify() == []
    with pytest.raises(RequestRejected, match="succeeded"):
        await handle.retry()


def _reporting(ledger: EvidenceLedger, seconds: float) -> dict[str, Any]:
    body = shell("true", env={"EVIDENCE": str(ledger.socket)})
    program = (
        f"{REPORTER[-1].replace('sys.argv[1]', repr('start'))}import time; time.sleep({seconds})"
    )
    body["payload"]["process"]["command"] = [*REPORTER[:-1], program]
    return body


async def test_terminate_kills_and_seals_as_lost(fabric: Fabric, ledger: EvidenceLedger) -> None:
    """Temporal's Terminate ends the payload at the next heartbeat and seals the run as LOST."""
    body = _reporting(ledger, 60)
    handle = await fabric.submit(body)
    await _until(handle, lambda status: status.state == State.RUNNING)
    while not (rows := ledger.lines(id=body["id"])):
        await asyncio.sleep(0.05)
    await handle.workflow.terminate("by hand")

    await _until(handle, lambda status: "record" in status.sources)

    status = await handle.status()
    assert (status.state, status.reason) == ("FAILED", "LOST")
    assert Capsule.open(status.capsule).result["reason"] == "LOST"
    with pytest.raises(ProcessLookupError):
        os.kill(rows[0]["pid"], 0)


async def test_reset_runs_again_under_the_next_epoch(
    fabric: Fabric, ledger: EvidenceLedger
) -> None:
    """A Reset proves the old epoch absent before the payload starts under a new one."""
    body = _reporting(ledger, 3)
    handle = await fabric.submit(body)
    await _until(handle, lambda status: status.state == State.RUNNING)
    while not ledger.lines(id=body["id"]):
        await asyncio.sleep(0.05)
    run = (await handle.workflow.describe()).run_id

    await fabric.client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace="default",
            workflow_execution=WorkflowExecution(workflow_id=handle.workflow_id, run_id=run),
            reason="again",
            workflow_task_finish_event_id=10,
            request_id=f"reset-{body['id']}",
        )
    )
    result = await handle.result()

    starts = ledger.lines(id=body["id"], event="start")
    assert [row["epoch"] for row in starts] == ["1", "2"]
    assert starts[1]["at"] > starts[0]["at"]
    assert result.epoch == 2
    with pytest.raises(ProcessLookupError):
        os.kill(starts[0]["pid"], 0)


async def test_twenty_submits_of_two_bodies(fabric: Fabric) -> None:
    """Ten get the one experiment, ten get E_CONFLICT, and one run exists."""
    one = shell("sleep 0.2")
    two = one | {"priority": 9}

    async def submit(body: dict[str, Any]) -> str:
        try:
            return (await fabric.submit(body)).id
        except RequestRejected as exc:
            return exc.code

    found = await asyncio.gather(*(submit(body) for _ in range(10) for body in (one, two)))

    runs = await fabric.list(query=f"WorkflowId = 'experiment/default/{one['id']}'")
    assert found.count(one["id"]) == found.count("E_CONFLICT") == 10
    assert len(runs) <= 1
