"""Who polls a task queue, as the server knows it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest

if TYPE_CHECKING:
    from temporalio.client import Client

ACTIVITIES = TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY
WORKFLOWS = TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW

_POLL = timedelta(seconds=90)
"""An open poll lasts a minute: who has not come for longer is away."""

_IDENTITY = "fabric@"


async def pollers(
    client: Client, queue: str, kind: TaskQueueType.ValueType = ACTIVITIES
) -> dict[str, datetime]:
    """Return when each poller of a queue was last there, by its identity.

    The server lists one that has gone for some minutes more.

    Raises:
        RPCError: the server does not answer.
    """
    answer = await client.workflow_service.describe_task_queue(
        DescribeTaskQueueRequest(
            namespace=client.namespace, task_queue=TaskQueue(name=queue), task_queue_type=kind
        )
    )
    return {found.identity: found.last_access_time.ToDatetime(UTC) for found in answer.pollers}


async def polling_hosts(client: Client, queue: str) -> set[str]:
    """Return the hosts whose workers take activities from a queue, or did a minute ago."""
    since = datetime.now(UTC) - _POLL
    return {
        identity.removeprefix(_IDENTITY)
        for identity, at in (await pollers(client, queue)).items()
        if identity.startswith(_IDENTITY) and at > since
    }
