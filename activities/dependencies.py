"""Experiments that need the outputs of others wait until those have ended.

They wait before any place is granted, so a waiting experiment holds nothing. How the others
ended is looked at when the input is staged: a failure there ends the run with its reason and
a capsule, and `retry` runs it again once the other has succeeded.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from temporalio import activity
from temporalio.client import WorkflowFailureError
from temporalio.service import RPCError, RPCStatusCode

from temporal_fabric import names
from temporal_fabric.artifacts.capsule_outputs import split_capsule_uri
from temporal_fabric.capsule.reading import Capsule
from temporal_fabric.errors import CapsuleError, Problem, RequestRejected, StoreError
from temporal_fabric.states import Reason, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from temporal_fabric.activities.desk import Desk
    from temporal_fabric.requests.models import ExecutionRequest
    from temporal_fabric.requests.payloads import Input


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
            RequestRejected: an input can never be had; see `check_upstreams`.
        """
        await check_upstreams(request, self._desk)
        upstreams = {(tenant, request_id) for _, _, (tenant, request_id, _) in _upstreams(request)}
        waited = False
        for tenant, request_id in sorted(upstreams):
            last = await self._desk.record(tenant, request_id).last_outcome()
            if last is not None and last[1].get("state") == State.SUCCEEDED:
                continue
            self._waiting[workflow_id] = f"{tenant}/{request_id}"
            try:
                await _ended(_workflow_id(tenant, request_id))
            finally:
                self._waiting.pop(workflow_id, None)
            waited = True
        if waited:
            await check_upstreams(request, self._desk)


async def check_upstreams(request: ExecutionRequest, desk: Desk) -> None:
    """Refuse inputs that can never be had, whatever is waited for.

    Of an experiment that has not succeeded nothing can be said yet: it may be retried.

    Raises:
        RequestRejected: with every such input. E_TENANT, it is another tenant's; E_CONFLICT,
            it is the experiment's own; E_DATA, an experiment that has succeeded does not have
            it; E_INTEGRITY, what it has is not what the request says.
    """
    problems: list[Problem] = []
    for at, given, (tenant, request_id, output) in _upstreams(request):
        path = f"{at}/source_uri"
        if tenant != request.tenant:
            message = f"is an output of another tenant; this experiment is {request.tenant}'s"
            problems.append(Problem("E_TENANT", path, message, actual=tenant))
        elif request_id == request.id:
            message = "is an output of this experiment itself"
            problems.append(Problem("E_CONFLICT", path, message, actual=request_id))
        else:
            last = await desk.record(tenant, request_id).last_outcome()
            if last is not None and last[1].get("state") == State.SUCCEEDED:
                capsule = str(last[1]["capsule"])
                problems += await asyncio.to_thread(_contradictions, capsule, output, given, at)
    if problems:
        raise RequestRejected(problems)


def _upstreams(request: ExecutionRequest) -> Iterator[tuple[str, Input, tuple[str, str, str]]]:
    """Yield place, input and (tenant, id, output) of every input from a capsule."""
    for at, given in request.inputs.items():
        named = split_capsule_uri(given.source_uri)
        if named is not None:
            yield (at, given, named)


def _contradictions(where: str, output: str, given: Input, at: str) -> Iterable[Problem]:
    """Compare an input with the sealed capsule it names."""
    try:
        capsule = Capsule.open(where)
    except (CapsuleError, StoreError):
        return []  # out of this worker's reach: staging says what is the matter
    try:
        files = capsule.output_files(output)
    except CapsuleError as exc:
        return [Problem("E_DATA", f"{at}/source_uri", str(exc), actual=output)]
    wanted = (given.sha256 or "").removeprefix("sha256:")
    if not wanted or [name for name, _ in files] != [""]:
        return []  # a folder's digest is compared when it is staged
    found = files[0][1].sha256
    if found == wanted:
        return []
    message = "is not the digest of that output; correct it, or name another output"
    return [Problem("E_INTEGRITY", f"{at}/sha256", message, actual=wanted, allowed=(found,))]


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
