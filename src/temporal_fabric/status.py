"""Reading where an experiment stands, from whatever still answers.

Temporal's description first (search attributes, memo, heartbeat), then a query with a limit
of two seconds, then the request record in the store. So it works with the worker down, with
the server down and after retention, and says which it used.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from temporalio.client import WorkflowExecutionStatus, WorkflowHandle
from temporalio.common import SearchAttributeKey
from temporalio.service import RPCError, RPCStatusCode

from temporal_fabric import names
from temporal_fabric.clock import stamp
from temporal_fabric.errors import ExperimentNotFound, StoreError
from temporal_fabric.record import RequestRecord
from temporal_fabric.shapes import is_table
from temporal_fabric.states import Reason, State
from temporal_fabric.store import open_store
from temporal_fabric.verdicts import waits_for

if TYPE_CHECKING:
    from collections.abc import Iterable

    from temporalio.client import Client, WorkflowExecution, WorkflowExecutionDescription

    from temporal_fabric.config import Settings

_QUERY_LIMIT = timedelta(seconds=2)
_AT_ONCE = 16

_CLOSED = {
    WorkflowExecutionStatus.COMPLETED: (State.SUCCEEDED, ""),
    WorkflowExecutionStatus.FAILED: (State.FAILED, Reason.INTERNAL),
    WorkflowExecutionStatus.CANCELED: (State.CANCELED, ""),
    WorkflowExecutionStatus.TERMINATED: (State.FAILED, Reason.LOST),
    WorkflowExecutionStatus.TIMED_OUT: (State.FAILED, Reason.TIMEOUT),
}


@dataclass(slots=True)
class ExperimentStatus:
    """Where one experiment stands. Every time is UTC, ISO 8601."""

    tenant: str
    request_id: str
    state: str = State.QUEUED
    reason: str = ""
    message: str = ""
    since: str = ""
    submitted: str = ""
    ended: str = ""
    name: str = ""
    kind: str = ""
    backend: str = ""
    epoch: int = 0
    native_id: str = ""
    flow: str = ""
    """Workflow id of the certified flow that runs for it now."""

    exit_code: int | None = None
    capsule: str = ""
    workflow_id: str = ""
    run_id: str = ""
    temporal_status: str = ""
    live: dict[str, Any] = field(default_factory=dict[str, Any])
    """The attempt's last heartbeat."""

    changes: list[str] = field(default_factory=list[str])
    """What the attempt asks for beyond the request, because of how others failed."""

    pending: list[str] = field(default_factory=list[str])
    """Pending activities, each with what it waits for."""

    question: dict[str, Any] = field(default_factory=dict[str, Any])
    """What a person is asked while it is HELD: number, text, choices, epoch, backend."""

    resolutions: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """What people have answered."""

    compensations: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """What was done to undo the payload's effects: name, ok, attempts."""

    timeline: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    attempts: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    sources: list[str] = field(default_factory=list[str])
    """What was read: ``describe``, ``query``, ``record``."""

    @property
    def final(self) -> bool:
        """Whether the experiment has ended."""
        return State(self.state).final


async def read_status(
    handle: WorkflowHandle[Any, Any] | None,
    record: RequestRecord | None,
    wanted: tuple[str, str],
    *,
    detail: bool = True,
) -> ExperimentStatus:
    """Read everything that answers about one experiment.

    Args:
        handle: The workflow, or None where no server answers.
        record: Its request record, or None where the store is out of reach.
        wanted: Tenant and request id.
        detail: Also ask the workflow for its timeline. Without a worker that takes its limit
            of two seconds, and queries pile up at the server: who polls goes without.

    Raises:
        ExperimentNotFound: neither Temporal nor the store knows it.
    """
    status = ExperimentStatus(*wanted, workflow_id=names.workflow_id(*wanted))
    if handle is not None:
        await _from_server(status, handle, detail=detail)
    if record is not None and (status.final or not status.sources):
        await _from_record(status, record)
    if not status.sources:
        raise ExperimentNotFound(
            f"no such experiment [id={wanted[1]}, tenant={wanted[0]}]: "
            "'temporal-fabric list' shows what there is"
        )
    return status


async def read_flow(
    status: ExperimentStatus, handle: WorkflowHandle[Any, Any], *, detail: bool
) -> None:
    """Add what the workflow of an experiment's flow knows: phase, iteration, energy.

    Args:
        status: Of the experiment, with the id of that workflow.
        handle: That workflow.
        detail: As for `read_status`. Without it only a step of more than a moment shows.
    """
    try:
        _pending(status, await handle.describe())
        if detail:
            now = await handle.query(names.QUERY_STATUS, rpc_timeout=_QUERY_LIMIT)
            status.live = status.live | now
    except Exception as exc:  # noqa: BLE001 - no worker, or it has just ended: never fatal
        status.pending.append(f"flow: {exc}")


async def recorded_status(settings: Settings, wanted: str) -> ExperimentStatus | None:
    """Read an experiment that has ended from the store alone; None where it says nothing."""
    tenant, _, request_id = wanted.rpartition("/")
    pair = (tenant or names.DEFAULT_TENANT, request_id)
    try:
        return await read_status(None, RequestRecord(open_store(settings.store), *pair), pair)
    except (ExperimentNotFound, StoreError):
        return None


async def _from_server(
    status: ExperimentStatus, handle: WorkflowHandle[Any, Any], *, detail: bool
) -> None:
    try:
        description = await handle.describe()
    except RPCError as exc:
        if exc.status == RPCStatusCode.NOT_FOUND:
            return
        raise
    await fill(status, description)
    _pending(status, description)
    status.sources.append("describe")
    if not detail:
        return
    try:
        answer = await handle.query(names.QUERY_STATUS, rpc_timeout=_QUERY_LIMIT)
        attempts = await handle.query(names.QUERY_ATTEMPTS, rpc_timeout=_QUERY_LIMIT)
    except Exception as exc:  # noqa: BLE001 - no worker, a failed run: detail only, never fatal
        status.pending.append(f"query: {exc}")
        return
    status.timeline, status.attempts = list(answer["timeline"]), list(attempts)
    status.native_id, status.changes = answer["native_id"], list(answer.get("changes", ()))
    status.question = dict(answer.get("question") or {})
    status.resolutions = list(answer.get("resolutions", ()))
    status.compensations = list(answer.get("compensations", ()))
    status.epoch, status.capsule = answer["epoch"], answer["capsule"] or status.capsule
    status.backend = answer["backend"] or status.backend
    if description.status is WorkflowExecutionStatus.RUNNING:
        status.state, status.reason = answer["state"], answer["reason"] or status.reason
        status.message = status.message if status.state == State.QUEUED else ""
    status.since = status.timeline[-1]["at"] if status.timeline else status.since
    status.sources.append("query")


async def fill_queued(found: Iterable[ExperimentStatus], client: Client) -> None:
    """Ask Temporal why those of a list wait that are queued: visibility does not know it."""
    free = asyncio.Semaphore(_AT_ONCE)

    async def ask(status: ExperimentStatus) -> None:
        handle = client.get_workflow_handle(status.workflow_id, run_id=status.run_id)
        try:
            async with free:
                _pending(status, await handle.describe())
        except RPCError:
            return  # it ended and was forgotten meanwhile

    await asyncio.gather(*(ask(status) for status in found if status.state == State.QUEUED))


async def fill(status: ExperimentStatus, execution: WorkflowExecution) -> None:
    """Take over what visibility says of an execution."""
    attributes = execution.typed_search_attributes
    state = attributes.get(SearchAttributeKey.for_keyword(names.SA_STATE))
    status.state = state or State.QUEUED
    status.reason = attributes.get(SearchAttributeKey.for_keyword(names.SA_REASON)) or ""
    status.backend = attributes.get(SearchAttributeKey.for_keyword(names.SA_BACKEND)) or ""
    status.kind = attributes.get(SearchAttributeKey.for_keyword(names.SA_KIND)) or ""
    status.workflow_id, status.run_id = execution.id, execution.run_id
    status.temporal_status = execution.status.name if execution.status else ""
    status.submitted = stamp(execution.start_time)
    memo = await execution.memo()
    if execution.status is not None and execution.status in _CLOSED:
        closed, why = _CLOSED[execution.status]
        status.state = memo.get(names.MEMO_STATE) or closed
        status.reason = memo.get(names.MEMO_REASON) or ("" if closed is status.state else why)
        if names.MEMO_STATE not in memo:
            status.reason = why
    status.capsule = memo.get(names.MEMO_CAPSULE, "")
    status.name = memo.get(names.MEMO_NAME, "")
    if execution.close_time is not None:
        status.ended = status.since = stamp(execution.close_time)


def _pending(status: ExperimentStatus, description: WorkflowExecutionDescription) -> None:
    for activity in description.raw_description.pending_activities:
        name = activity.activity_type.name
        text = f"{name}: {_short_state(activity.state)}"
        if activity.attempt > 1:
            text += f", try {activity.attempt}"
        if activity.HasField("last_failure"):
            text += f", last failure: {activity.last_failure.message.splitlines()[0]}"
        status.pending.append(text)
        details = activity.heartbeat_details.payloads
        if details:
            decoded = description.data_converter.payload_converter.from_payloads(details)
            if decoded and is_table(decoded[0]):
                status.live = decoded[0]
    for child in description.raw_description.pending_children:
        if child.workflow_type_name == names.WORKFLOW_CERTIFIED_FLOW:
            status.flow = child.workflow_id
    if status.state == State.QUEUED and status.live.get("state") in set(State):
        # A namespace without our search attributes: the heartbeat is the next best word.
        status.state = str(status.live["state"])
    if status.state == State.QUEUED:
        status.reason = status.reason or str(status.live.get("reason", ""))
        status.message = waits_for(status.live)


def _short_state(number: int) -> str:
    return {1: "waiting for a worker", 2: "running", 3: "cancelling"}.get(number, "pending")


async def _from_record(status: ExperimentStatus, record: RequestRecord) -> None:
    """Fill from the store what only it still knows: everything, after retention."""
    try:
        outcome = await record.outcome(status.run_id) if status.run_id else None
        if outcome is None and not status.sources:
            last = await record.last_outcome()
            outcome = last[1] if last else None
    except StoreError as exc:
        status.pending.append(f"record: {exc}")
        return
    if outcome is None:
        return
    for key in ("state", "reason", "message", "backend", "epoch", "exit_code", "capsule"):
        setattr(status, key, outcome.get(key) or getattr(status, key))
    status.exit_code = outcome.get("exit_code")
    status.timeline = outcome.get("timeline") or status.timeline
    status.attempts = outcome.get("attempts") or status.attempts
    status.resolutions = outcome.get("resolutions") or status.resolutions
    status.compensations = outcome.get("compensations") or status.compensations
    status.ended = status.since = outcome.get("ended_at") or status.ended
    status.submitted = status.submitted or outcome.get("started_at", "")
    status.sources.append("record")
