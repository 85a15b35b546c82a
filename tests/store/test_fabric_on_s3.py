"""A whole fabric whose store is a bucket: nothing that must last lies on a disk of ours."""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest

from temporal_fabric import Capsule, Fabric, RequestRejected
from temporal_fabric.connection import connect
from temporal_fabric.errors import CapsuleError
from temporal_fabric.testing.environment import FabricEnvironment
from tests.bodies import shell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.artifacts.servers import S3Server

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def environment(s3: S3Server) -> AsyncIterator[FabricEnvironment]:
    """A server with one worker, whose store is a bucket."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.env.items():
            patch.setenv(name, value)
        store = f"s3://bucket/lab-{secrets.token_hex(3)}"
        async with FabricEnvironment.fresh(store=store) as found:
            yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fabric(environment: FabricEnvironment) -> Fabric:
    """A connected client."""
    client = await connect(environment.settings, address=environment.address)
    return Fabric(client, environment.settings)


def _body(request_id: str, script: str, **more: Any) -> dict[str, Any]:
    return shell(script, **more) | {"id": request_id}


_REPORT = (
    "echo out; echo err >&2; cd $FABRIC_OUTPUT_DIR; printf 12 > 'one é.txt'; mkdir d; "
    "echo 3 > d/x; "
    """echo '{"step": 1, "loss": 0.5}' > $FABRIC_TELEMETRY"""
)


async def test_a_run_leaves_a_whole_capsule_in_the_bucket(
    fabric: Fabric, environment: FabricEnvironment
) -> None:
    """Result, files, digests and values are read from the bucket; no capsule lies in the home."""
    handle = await fabric.submit(_body("report", _REPORT, outputs=[{"source_path": "d"}]))

    result = await handle.result()

    capsule = Capsule.open(result.capsule)
    assert result.capsule == f"{environment.settings.store}/capsules/default/report/1"
    assert capsule.verify() == []
    assert capsule.result["state"] == "SUCCEEDED"
    assert capsule.read("artifacts/one é.txt") == b"12"
    assert capsule.read("logs/1/stdout.log") == b"out\n"
    assert [name for name, _ in capsule.output_files("d")] == ["x"]
    assert not (environment.home / "capsules").exists()
    assert not (environment.home / "requests").exists()
    with pytest.raises(CapsuleError, match="get"):
        _ = capsule.folder


async def test_the_same_again_and_another_body(fabric: Fabric) -> None:
    """The record in the bucket knows the id: the same body joins, another is a conflict."""
    again = await fabric.submit(_body("report", _REPORT, outputs=[{"source_path": "d"}]))
    assert (await again.result()).epoch == 1

    with pytest.raises(RequestRejected) as refused:
        await fabric.submit(_body("report", "true"))

    assert refused.value.code == "E_CONFLICT"


async def test_one_experiment_feeds_another(fabric: Fabric) -> None:
    """An output in a bucket is an input of the next experiment, verified on the way."""
    body = _body("reader", "cat $FABRIC_INPUT_DIR/x $FABRIC_INPUT_DIR/d/x")
    body["payload"]["process"]["inputs"] = [
        {"source_uri": "capsule://default/report/one%20%C3%A9.txt", "mount_path": "x"},
        {"source_uri": "capsule://default/report/d", "mount_path": "d"},
    ]

    result = await (await fabric.submit(body)).result()

    assert Capsule.open(result.capsule).read("logs/1/stdout.log") == b"123\n"


def double(number: int) -> int:
    """Run by a test, somewhere else."""
    return 2 * number


async def test_what_a_function_returned(fabric: Fabric) -> None:
    """A value comes back through the bucket."""
    assert await fabric.task()(double)(21) == 42


async def test_a_damaged_object_is_found(fabric: Fabric, s3: S3Server) -> None:
    """A flipped bit in the bucket: verify names the file, and get copies nothing."""
    result = await (await fabric.submit(_body("rot", "echo good > $FABRIC_OUTPUT_DIR/f"))).result()
    s3.put(result.capsule.removeprefix("s3://bucket/") + "/artifacts/f", b"bad!\n")

    assert Capsule.open(result.capsule).verify() == [
        "artifacts/f: content differs from the manifest"
    ]


def _json(environment: FabricEnvironment, *args: str) -> Any:
    done = environment.cli(*args, "-o", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


async def test_after_retention(environment: FabricEnvironment, fabric: Fabric) -> None:
    """Once Temporal has forgotten the run, result and output still come from the bucket."""
    handle = fabric.get("report")
    await fabric.client.workflow_service.delete_workflow_execution(
        DeleteWorkflowExecutionRequest(
            namespace=fabric.client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=handle.workflow_id),
        )
    )
    async with asyncio.timeout(90):
        while "record" not in (await handle.status()).sources[:1]:
            await asyncio.sleep(0.1)

    result = environment.cli("result", "report")
    logs = environment.cli("logs", "report")

    assert (await handle.result()).capsule == (await handle.status()).capsule
    assert (result.returncode, "SUCCEEDED" in result.stdout) == (0, True)
    assert logs.stdout == "out\n"


async def test_the_command_line_without_server_and_worker(
    environment: FabricEnvironment, tmp_path: Path
) -> None:
    """With everything of ours down, each command that reads still answers from the bucket."""
    rotten = environment.cli("get", "rot", "--to", str(tmp_path / "rot"))
    copied = environment.cli("get", "report", "--to", str(tmp_path / "all"))
    environment.stop_worker()
    assert environment.server is not None
    environment.server.stop()

    listed = {row["request_id"]: row["state"] for row in _json(environment, "capsule", "ls")}
    shown = _json(environment, "capsule", "show", "report")
    verified = environment.cli("capsule", "verify", "rot")
    asked = _json(environment, "capsule", "query", "SELECT value FROM telemetry", "report")
    status = _json(environment, "status", "report")

    assert rotten.returncode == 1
    assert "differs" in rotten.stderr
    assert not list((tmp_path / "rot").rglob("f"))
    assert copied.returncode == 0
    assert (tmp_path / "all/one é.txt").read_bytes() == b"12"
    assert (listed["report"], listed["rot"]) == ("SUCCEEDED", "SUCCEEDED")
    assert shown["capsule"].startswith("s3://bucket/")
    assert (verified.returncode, "artifacts/f" in verified.stderr) == (1, True)
    assert asked == [{"value": 0.5}]
    assert (status["state"], status["sources"]) == ("SUCCEEDED", ["record"])


async def test_doctor_says_what_is_wrong_with_the_store(environment: FabricEnvironment) -> None:
    """A working store is tried out; a bucket that is not there is named with the remedy."""
    good = environment.cli("doctor")
    environment.env["FABRIC_STORE"] = "s3://no-such-bucket/x"
    bad = environment.cli("doctor")

    line = next(text for text in good.stdout.splitlines() if " store " in f" {text} ")
    assert line.startswith("ok")
    assert "deleted" in line
    assert "NoSuchBucket" in bad.stdout
    assert "create the bucket" in bad.stdout
