"""Receivers are told of an experiment's states, and nothing that they do touches it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError
from temporalio.exceptions import ActivityError, ApplicationError

from temporal_fabric import ExperimentCanceled, ExperimentFailed, Fabric, names
from temporal_fabric.config import Settings
from temporal_fabric.connection import connect
from temporal_fabric.errors import RequestRejected
from temporal_fabric.messages import Notice
from tests.bodies import shell
from tests.receiver import Receiver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from temporalio.client import Client

    from temporal_fabric.testing.environment import FabricEnvironment

FIELDS = (
    "schema_version event_id event tenant id run_id state reason message backend epoch at capsule"
)


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    """A receiver that runs and takes everything."""
    found = Receiver(tmp_path)
    found.start()
    yield found
    found.close()


@pytest_asyncio.fixture
async def telling(
    own_environment: FabricEnvironment, receiver: Receiver
) -> AsyncIterator[tuple[FabricEnvironment, Fabric]]:
    """An environment whose owner allows the receiver, with a worker."""
    (own_environment.home / "fabric.toml").write_text(receiver.config)
    own_environment.start_worker()
    client = await connect(own_environment.settings, address=own_environment.address)
    yield (own_environment, Fabric(client, own_environment.settings))


async def _until(seen: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not seen():
            await asyncio.sleep(0.05)


async def _deliveries(client: Client) -> list[tuple[str, WorkflowExecutionStatus | None]]:
    query = f"WorkflowType = '{names.WORKFLOW_NOTIFY}'"
    return [(found.id, found.status) async for found in client.list_workflows(query)]


def _states(receiver: Receiver) -> list[str]:
    events = sorted(receiver.events().values(), key=lambda event: event["event"])
    return [event["state"] for event in events]


async def test_the_states_asked_for_are_told(
    telling: tuple[FabricEnvironment, Fabric], receiver: Receiver
) -> None:
    """Each state named is one POST with every documented field, and no other state is told."""
    _, fabric = telling
    rules = [{"on": ["RUNNING", "ended"], "url": receiver.url}, {"url": receiver.url + "?two=1"}]
    body = shell("echo the log; exit 3", notify=rules)
    handle = await fabric.submit(body)
    with pytest.raises(ExperimentFailed) as caught:
        await handle.result()
    await _until(lambda: len(receiver.posts()) == 3)

    posts = sorted(receiver.posts(), key=lambda post: (post["path"], post["body"]["event"]))
    events = [post["body"] for post in posts]
    last = events[1]
    timeline = (await handle.status()).timeline
    assert [(post["path"], post["body"]["state"]) for post in posts] == [
        ("/hook", "RUNNING"),
        ("/hook", "FAILED"),
        ("/hook?two=1", "FAILED"),
    ]
    assert [" ".join(event) for event in events] == [FIELDS] * 3
    assert (last["id"], last["tenant"], last["epoch"]) == (body["id"], "default", 1)
    assert (last["reason"], last["message"]) == ("EXIT_CODE", caught.value.result["message"])
    assert last["capsule"] == caught.value.result["capsule"]
    assert events[0]["capsule"] is events[0]["message"] is None
    assert [timeline[event["event"] - 1]["state"] for event in events[:2]] == ["RUNNING", "FAILED"]
    for post in posts:
        assert post["headers"]["Idempotency-Key"] == post["body"]["event_id"]
        assert "the log" not in str(post)


async def test_cancelled_in_line_is_told(
    own_environment: FabricEnvironment, receiver: Receiver
) -> None:
    """An experiment that never had a place tells its end, and a pause that it made before."""
    env = own_environment
    (env.home / "fabric.toml").write_text(receiver.config + "[backends.local]\nslots = 1\n")
    env.start_worker()
    fabric = Fabric(await connect(env.settings, address=env.address), env.settings)
    first = await fabric.submit(shell("sleep 60", limits={"grace_s": 0.1}))
    await _reaches(first, "RUNNING")
    rule = {"on": ["PAUSED", "CANCELED"], "url": receiver.url}
    handle = await fabric.submit(shell("true", notify=[rule]))
    await handle.pause()
    await handle.cancel()
    with pytest.raises(ExperimentCanceled):
        await handle.result()
    await _until(lambda: len(receiver.events()) == 2)

    assert _states(receiver) == ["PAUSED", "CANCELED"]
    await first.cancel()


async def _reaches(handle: Any, state: str) -> None:
    async with asyncio.timeout(30):
        while (await handle.status()).state != state:
            await asyncio.sleep(0.05)


async def test_a_killed_worker_loses_and_doubles_nothing(
    telling: tuple[FabricEnvironment, Fabric], receiver: Receiver
) -> None:
    """A worker killed while the receiver has a notice and has not answered sends the same again."""
    env, fabric = telling
    receiver.behave("hold")
    rule = {"on": ["RUNNING", "ended"], "url": receiver.url}
    handle = await fabric.submit(shell("sleep 3", notify=[rule]))
    await _until(receiver.posts)

    env.kill_worker()
    receiver.behave("take")
    env.start_worker()
    result = await handle.result()
    await _until(lambda: len(receiver.events()) == 2 and len(receiver.posts()) > 2)

    assert (result.state, result.epoch) == ("SUCCEEDED", 1)
    assert _states(receiver) == ["RUNNING", "SUCCEEDED"]
    repeats = [post["body"] for post in receiver.posts() if post["body"]["state"] == "RUNNING"]
    assert repeats[0] == repeats[1]


async def test_a_receiver_that_was_down_is_told_later(
    telling: tuple[FabricEnvironment, Fabric], receiver: Receiver
) -> None:
    """The run ends while the receiver is down; it is told once it is back."""
    _, fabric = telling
    receiver.close()
    handle = await fabric.submit(shell("true", notify=[{"url": receiver.url}]))
    result = await handle.result()
    assert receiver.posts() == []

    receiver.start()
    await _until(receiver.posts)

    assert _states(receiver) == [result.state]


@pytest.mark.parametrize("how", ["drip", "500", "404", "hold"])
async def test_a_hostile_receiver_holds_up_nothing(
    telling: tuple[FabricEnvironment, Fabric], receiver: Receiver, how: str
) -> None:
    """The result comes while the receiver still refuses, and the delivery goes on by itself."""
    _, fabric = telling
    receiver.behave(how)
    rule = {"on": ["RUNNING", "ended"], "url": receiver.url}
    handle = await fabric.submit(shell("true", notify=[rule]))
    result = await handle.result()
    await _until(lambda: len(receiver.events()) == 2)

    found = await _deliveries(fabric.client)
    assert result.state == "SUCCEEDED"
    assert [status for _, status in found] == [WorkflowExecutionStatus.RUNNING] * 2
    if how == "drip":
        # The limit of time is for the whole answer: it is cut off although it never pauses.
        await _until(lambda: len(receiver.posts()) > 2)


async def test_a_redirect_is_not_followed(
    telling: tuple[FabricEnvironment, Fabric], receiver: Receiver
) -> None:
    """A redirect to loopback fails the delivery at once, and nobody connects there."""
    _, fabric = telling
    receiver.behave(f"307 {receiver.url}/elsewhere")
    handle = await fabric.submit(shell("true", notify=[{"url": receiver.url}]))
    result = await handle.result()
    refused = await _refused(fabric.client)

    assert result.state == "SUCCEEDED"
    assert "answered 307" in refused.message
    assert [post["path"] for post in receiver.posts()] == ["/hook"]


async def _refused(client: Client) -> ApplicationError:
    """Return why the one delivery there is failed."""
    async with asyncio.timeout(30):
        while not (found := await _deliveries(client)):
            await asyncio.sleep(0.1)
    with pytest.raises(WorkflowFailureError) as caught:
        await client.get_workflow_handle(found[0][0]).result()
    assert isinstance(caught.value.cause, ActivityError)
    cause = caught.value.cause.cause
    assert isinstance(cause, ApplicationError)
    assert cause.type == "NoticeRefused"
    return cause


async def test_a_receiver_inside_the_network_is_refused(
    telling: tuple[FabricEnvironment, Fabric], receiver: Receiver
) -> None:
    """A loopback address is told nothing, also by a workflow that was started past admission."""
    _, fabric = telling
    url = receiver.url.replace("data.example", "localhost")
    with pytest.raises(RequestRejected, match="E_URI_HOST"):
        await fabric.submit(shell("true", notify=[{"url": url}]))
    notice = Notice(url, "default", "x", "run", 1, "FAILED", "2026-01-01T00:00:00Z")
    started = await fabric.client.start_workflow(
        names.WORKFLOW_NOTIFY, notice, id="notify/x", task_queue=names.QUEUE
    )
    refused = await _refused(fabric.client)

    assert started.id == "notify/x"
    assert "E_URI_HOST" in refused.message
    assert receiver.posts() == []


async def test_a_repeated_request_is_not_told_again(
    telling: tuple[FabricEnvironment, Fabric], receiver: Receiver
) -> None:
    """A start that gives the recorded result tells nobody: it was told when it happened."""
    _, fabric = telling
    body = shell("true", notify=[{"url": receiver.url}])
    await (await fabric.submit(body)).result()
    await _until(receiver.posts)
    again = await fabric.client.start_workflow(
        names.WORKFLOW_EXPERIMENT,
        body,
        id=names.workflow_id("default", body["id"]),
        task_queue=names.QUEUE,
    )
    await again.result()

    assert len(await _deliveries(fabric.client)) == len(receiver.posts()) == 1


async def test_a_reset_run_tells_only_what_it_does_anew(
    telling: tuple[FabricEnvironment, Fabric], receiver: Receiver
) -> None:
    """A Reset of the last decision tells the end again, as another run's, and nothing before."""
    _, fabric = telling
    rule = {"on": ["RUNNING", "ended"], "url": receiver.url}
    handle = await fabric.submit(shell("true", notify=[rule]))
    await handle.result()
    begun = EventType.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_INITIATED
    events = (await handle.workflow.fetch_history()).events
    last = [event for event in events if event.event_type == begun][-1]
    decided = last.start_child_workflow_execution_initiated_event_attributes
    run = (await handle.workflow.describe()).run_id
    await fabric.client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace="default",
            workflow_execution=WorkflowExecution(workflow_id=handle.workflow_id, run_id=run),
            reason="again",
            workflow_task_finish_event_id=decided.workflow_task_completed_event_id,
            request_id=f"reset-{handle.id}",
        )
    )
    again = fabric.client.get_workflow_handle(handle.workflow_id)
    await again.result()
    await _until(lambda: len(receiver.events()) == 3)

    told = [(event["state"], event["run_id"] == run) for event in receiver.events().values()]
    assert sorted(told) == [("RUNNING", True), ("SUCCEEDED", False), ("SUCCEEDED", True)]


def test_settings_are_checked(tmp_path: Path) -> None:
    """Every wrong setting of the table is listed."""
    (tmp_path / "fabric.toml").write_text(
        "[notify]\nnetworks = ['all']\nproxy = ''\n[notify.hosts]\na = 'b'\n"
    )

    with pytest.raises(RequestRejected) as caught:
        Settings.load(home=tmp_path, env={}, cwd=tmp_path)

    assert {(problem.code, problem.path) for problem in caught.value.problems} == {
        ("E_TYPE", "/notify/networks"),
        ("E_UNKNOWN_FIELD", "/notify/proxy"),
        ("E_TYPE", "/notify/hosts"),
    }
