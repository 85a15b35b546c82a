"""Experiments that need the outputs of others wait until those have ended.

They wait before any place is granted, so a waiting experiment holds nothing. How the others
ended is looked at when the input is staged: a failure there ends the run with its reason and
a capsule, and `retry` runs it again once the other has succeeded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from temporalio import activity
from temporalio.client import WorkflowFailureError
from temporalio.service import RPCError, RPCStatusCode

from temporal_fabric import names
from temporal_fabric.artifacts.capsule_outputs import split_capsule_uri
from temporal_fabric.artifacts.staging import inputs_of
from temporal_fabric.errors import Problem, RequestRejected
from temporal_fabric.states import Reason, State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from temporal_fabric.activities.desk import Desk
    from temporal_fabric.requests.models import ExecutionRequest


class Dependencies:
    """What the waiting experiments of one worker wait for."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._waiting: dict[str, str] = {}

    def waiting(self, workflow_id: str) -> dict[str, Any]:
        """Return what the UI shows of a waiting experiment; empty where it does not wait."""
        upstream = self._waiting.get(workflow_id)
        return {"reason": Reason.DEPENDENCY, "waits_for": upstream} if upstream else {}

    async def settled(self, request: ExecutionRequest, workflow_id: str) -> None:
        """Return when every experiment whose output is an input has ended, or is not there.

        Raises:
            RequestRejected: an input is the experiment's own output, or another tenant's.
        """
        upstreams = dict.fromkeys(_upstreams(request))
        for tenant, request_id in upstreams:
            last = await self._desk.record(tenant, request_id).last_outcome()
            if last is not None and last[1].get("state") == State.SUCCEEDED:
                continue
            self._waiting[workflow_id] = f"{tenant}/{request_id}"
            try:
                await _ended(_workflow_id(tenant, request_id))
            finally:
                self._waiting.pop(workflow_id, None)


def _upstreams(request: ExecutionRequest) -> Iterator[tuple[str, str]]:
    for number, given in enumerate(inputs_of(request)):
        named = split_capsule_uri(given.source_uri)
        if named is None:
            continue
        tenant, request_id, _ = named
        path = f"/payload/{request.kind}/inputs/{number}/source_uri"
        if tenant != request.tenant:
            message = f"is an output of another tenant; this experiment is {request.tenant}'s"
            raise RequestRejected([Problem("E_TENANT", path, message, actual=tenant)])
        if request_id == request.id:
            message = "is an output of this experiment itself"
            raise RequestRejected([Problem("E_CONFLICT", path, message, actual=request_id)])
        yield (tenant, request_id)


def _workflow_id(tenant: str, request_id: str) -> str:
    scheduled = names.scheduled_workflow_id(tenant, request_id)
    return scheduled or names.workflow_id(tenant, request_id)


async def _ended(workflow_id: str) -> None:
    """Return when a workflow has ended, however, or does not exist."""
    try:
        await activity.client().get_workflow_handle(workflow_id).result()
    except WorkflowFailureError:
        return
    except RPCError as exc:
        if exc.status != RPCStatusCode.NOT_FOUND:
            raise
