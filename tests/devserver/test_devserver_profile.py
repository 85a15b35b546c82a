"""The dev profile, by its effects: unknown settings are accepted by the server in silence."""

from __future__ import annotations

import asyncio
import time
import uuid
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from temporalio import activity, workflow
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    DescribeNamespaceRequest,
    ListTaskQueuePartitionsRequest,
)
from temporalio.client import ActivityHandle, Client
from temporalio.common import Priority
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from temporal_fabric.devserver import DevServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.devserver.conftest import Servers


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, cli: Path) -> Iterator[DevServer]:
    """One server for all checks of this module."""
    home = tmp_path_factory.mktemp("profile")
    started = DevServer.start(home, durable=False, port=0, ui=False, cli=cli)
    yield started
    started.kill()


@activity.defn
async def step() -> None:
    """Do nothing."""


@workflow.defn(sandboxed=False)
class ThreeSteps:
    """Runs three activities one after the other."""

    @workflow.run
    async def run(self) -> None:
        """Run them."""
        for _ in range(3):
            await workflow.execute_activity(step, start_to_close_timeout=timedelta(seconds=10))


async def queue_activity(client: Client, queue: str, number: int, key: str) -> ActivityHandle[Any]:
    """Queue one activity under a fairness key."""
    return await client.start_activity(
        "note",
        key,
        id=f"{queue}-{number}",
        task_queue=queue,
        start_to_close_timeout=timedelta(seconds=10),
        priority=Priority(fairness_key=key),
    )


async def test_closed_workflows_stay_for_thirty_days(server: DevServer) -> None:
    """The default namespace keeps closed workflows for thirty days."""
    client = await Client.connect(server.info.address)
    asked = DescribeNamespaceRequest(namespace=server.info.namespace)
    found = await client.workflow_service.describe_namespace(asked)

    retention = found.config.workflow_execution_retention_ttl.ToTimedelta()
    assert retention == timedelta(days=30)


async def test_queues_have_one_partition(server: DevServer) -> None:
    """One partition makes priority strict and weights exact."""
    client = await Client.connect(server.info.address)
    asked = ListTaskQueuePartitionsRequest(
        namespace=server.info.namespace, task_queue=TaskQueue(name="any")
    )
    found = await client.workflow_service.list_task_queue_partitions(asked)

    assert len(found.activity_task_queue_partitions) == 1
    assert len(found.workflow_task_queue_partitions) == 1


async def test_workflows_can_be_paused(server: DevServer) -> None:
    """The server accepts a pause, which it refuses by default."""
    client = await Client.connect(server.info.address)
    await client.start_workflow("Nobody", id="to-pause", task_queue="nobody")

    done = await asyncio.create_subprocess_exec(
        *(server.cli, "workflow", "pause", "--workflow-id", "to-pause"),
        *("--address", server.info.address),
    )

    assert await done.wait() == 0


async def test_steps_are_fast(server: DevServer) -> None:
    """Three activities take well below the 50 ms a step of the default poll rate."""
    client = await Client.connect(server.info.address)
    queue = f"steps-{uuid.uuid4()}"
    took: list[float] = []
    async with Worker(
        client,
        task_queue=queue,
        workflows=[ThreeSteps],
        activities=[step],
        workflow_runner=UnsandboxedWorkflowRunner(),
    ):
        for number in range(5):
            began = time.monotonic()
            await client.execute_workflow(ThreeSteps.run, id=f"{queue}-{number}", task_queue=queue)
            took.append(time.monotonic() - began)

    assert min(took) < 0.25


async def test_fairness_lets_a_latecomer_in(server: DevServer) -> None:
    """A key that comes after a long backlog of another is served in turn, not last."""
    client = await Client.connect(server.info.address)
    queue = f"fair-{uuid.uuid4()}"
    order: list[str] = []

    @activity.defn(name="note")
    async def note(key: str) -> None:
        order.append(key)

    keys = ["many"] * 12 + ["few"] * 2
    handles = [await queue_activity(client, queue, number, key) for number, key in enumerate(keys)]
    async with Worker(client, task_queue=queue, activities=[note], max_concurrent_activities=1):
        for handle in handles:
            await handle.result()

    assert max(index for index, key in enumerate(order) if key == "few") < 8


@pytest.mark.parametrize("synchronous", ["1", "2"])
def test_durability(tmp_path: Path, servers: Servers, synchronous: str) -> None:
    """The journal is a write-ahead log; a durable server also asks for a sync each time."""
    server = servers.start(tmp_path, durable=synchronous == "2")
    command = Path(f"/proc/{server.info.pid}/cmdline").read_text(encoding="utf-8").split("\0")

    assert (tmp_path / "temporal.db-wal").exists()
    assert f"synchronous={synchronous}" in command
