"""A short experiment costs few round trips, and tells the same story as a long one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from temporalio.api.enums.v1 import EventType

from tests.bodies import shell

if TYPE_CHECKING:
    from temporal_fabric.client import Fabric
    from temporal_fabric.handle import ExperimentHandle

pytestmark = pytest.mark.asyncio(loop_scope="module")

STORY = ["QUEUED", "PREPARING", "RUNNING", "COLLECTING", "SUCCEEDED"]


async def _signals(handle: ExperimentHandle) -> int:
    history = await handle.workflow.fetch_history()
    signaled = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED
    return sum(event.event_type == signaled for event in history.events)


async def test_a_short_run_is_told_by_its_result_alone(fabric: Fabric) -> None:
    """States that pass at once are in the timeline with the times the attempt noted."""
    handle = await fabric.submit(shell("true"))
    result = await handle.result()

    told = {moment.state: moment.at for moment in result.timeline}
    attempt = result.attempts[0]
    assert list(told) == STORY
    assert told["RUNNING"] == attempt.started_at
    assert told["COLLECTING"] == attempt.collecting_at


async def test_a_state_that_lasts_is_told_while_it_lasts(fabric: Fabric) -> None:
    """RUNNING is signalled once it has lasted for a moment, and stands in the timeline once."""
    handle = await fabric.submit(shell("sleep 2"))
    result = await handle.result()

    assert [moment.state for moment in result.timeline] == STORY
    assert await _signals(handle) >= 1


async def test_joining_a_running_experiment_compares_the_bodies(fabric: Fabric) -> None:
    """The same body under the id of a running experiment is the same experiment."""
    body = shell("sleep 1")
    first = await fabric.submit(body)
    second = await fabric.submit(body)

    assert (await first.result()).ended_at == (await second.result()).ended_at
