"""The worker's side: trace headers through the workflow, ids and spans around activities.

The workflow interceptor copies one header and does nothing else: no command is added, so a
history replays the same with it and without it.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from time import time
from typing import TYPE_CHECKING, Any

from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.worker import (
    ActivityInboundInterceptor,
    Interceptor,
    WorkflowInboundInterceptor,
    WorkflowOutboundInterceptor,
)

from temporal_fabric import names
from temporal_fabric.messages import AbsentInput, AcquireInput, AttemptInput, SealInput
from temporal_fabric.observability.context import TaskContext, task
from temporal_fabric.observability.submission import HEADER, carried
from temporal_fabric.observability.traceparent import RunTrace, TraceParent, payload_span
from temporal_fabric.shapes import is_table

if TYPE_CHECKING:
    from temporalio.api.common.v1 import Payload
    from temporalio.worker import (
        ExecuteActivityInput,
        ExecuteWorkflowInput,
        StartActivityInput,
        WorkflowInterceptorClassInput,
    )
    from temporalio.workflow import ActivityHandle

    from temporal_fabric.observability.observer import Observer
    from temporal_fabric.outcomes import AttemptResult


class WorkerInterceptor(Interceptor):
    """Observes the activities of one worker.

    Args:
        observer: Who is told.
    """

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def intercept_activity(
        self,
        next: ActivityInboundInterceptor,  # noqa: A002 - its base's name
    ) -> ActivityInboundInterceptor:
        """See `temporalio.worker.Interceptor.intercept_activity`."""
        return _Activities(next, self._observer)

    def workflow_interceptor_class(
        self,
        input: WorkflowInterceptorClassInput,  # noqa: A002 - its base's name
    ) -> type[WorkflowInboundInterceptor]:
        """See `temporalio.worker.Interceptor.workflow_interceptor_class`."""
        del input
        return HandOn


class HandOn(WorkflowInboundInterceptor):
    """Hands the trace header of a workflow on to its activities."""

    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        """See `temporalio.worker.WorkflowInboundInterceptor.init`."""
        self._outbound = _HandOnOut(outbound)
        super().init(self._outbound)

    async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:  # noqa: A002
        """See `temporalio.worker.WorkflowInboundInterceptor.execute_workflow`."""
        self._outbound.carried = input.headers.get(HEADER)
        return await super().execute_workflow(input)


class _HandOnOut(WorkflowOutboundInterceptor):
    carried: Payload | None = None

    def start_activity(self, input: StartActivityInput) -> ActivityHandle[Any]:  # noqa: A002
        if self.carried is not None:
            input.headers = {**input.headers, HEADER: self.carried}
        return super().start_activity(input)


class _Activities(ActivityInboundInterceptor):
    def __init__(self, below: ActivityInboundInterceptor, observer: Observer) -> None:
        super().__init__(below)
        self._observer = observer

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        info = activity.info()
        if info.workflow_run_id is None:
            return await super().execute_activity(input)
        asked: Any = input.args[0] if input.args else None
        run = RunTrace(info.workflow_run_id, carried(input.headers))
        with task(_about(info, asked)):
            if isinstance(asked, AcquireInput) and asked.held is None:
                return await self._acquire(input, asked, run)
            if isinstance(asked, AttemptInput):
                with payload_span(run.payload(asked.epoch)):
                    return await self._attempt(input, asked, run)
            return await super().execute_activity(input)

    async def _acquire(
        self, given: ExecuteActivityInput, asked: AcquireInput, run: RunTrace
    ) -> Any:
        span = run.acquire(asked.number)
        try:
            grant = await super().execute_activity(given)
        except ApplicationError as exc:
            if exc.non_retryable:
                await self._observer.refused(_kind(asked.body), exc.type or "")
                self._span("acquire", span, run.submitted, error=exc.type or "refused")
            raise
        self._span("acquire", span, run.submitted, {"fabric.backend": grant.backend})
        return grant

    async def _attempt(
        self, given: ExecuteActivityInput, asked: AttemptInput, run: RunTrace
    ) -> AttemptResult:
        span, parent = run.attempt(asked.number), run.acquire(asked.number)
        about = {"fabric.backend": asked.backend, "fabric.epoch": asked.epoch}
        try:
            ended: AttemptResult = await super().execute_activity(given)
        except ApplicationError as exc:
            if exc.non_retryable:
                self._span("attempt", span, parent, about, error=exc.type or "failed")
            raise
        except asyncio.CancelledError:
            # A worker that leaves ends nothing: whoever adopts the payload ends this span.
            why = activity.cancellation_details()
            if why is not None and why.cancel_requested:
                self._span("attempt", span, parent, about | {"fabric.canceled": True})
            raise
        self._span("attempt", span, parent, about, error=ended.reason)
        self._payload(run.payload(asked.epoch), span, ended)
        return ended

    def _payload(self, span: TraceParent, parent: TraceParent, ended: AttemptResult) -> None:
        if self._observer.tracing is None or not ended.started_at or not ended.ended_at:
            return
        begun, over = (
            datetime.fromisoformat(at).timestamp() for at in (ended.started_at, ended.ended_at)
        )
        about: dict[str, Any] = {
            "fabric.backend": ended.backend,
            "fabric.native_id": ended.native_id,
        }
        if ended.exit_code is not None:
            about["process.exit.code"] = ended.exit_code
        self._observer.tracing.record(
            "payload",
            span,
            parent,
            times_s=(begun, over),
            attributes=about,
            error=ended.reason,
        )

    def _span(
        self,
        name: str,
        span: TraceParent,
        parent: TraceParent | None,
        about: dict[str, Any] | None = None,
        error: str = "",
    ) -> None:
        """Record the activity at hand, from its scheduling on, whoever worked at it before."""
        if self._observer.tracing is None:
            return
        info = activity.info()
        ids = {
            "temporalWorkflowID": info.workflow_id or "",
            "temporalRunID": info.workflow_run_id or "",
        }
        times = (info.scheduled_time.timestamp(), time())
        self._observer.tracing.record(
            name, span, parent, times_s=times, attributes=ids | (about or {}), error=error
        )


def _about(info: activity.Info, asked: Any) -> TaskContext:
    workflow_id = info.workflow_id or ""
    tenant, request_id = names.request_of(workflow_id)
    epoch = 0
    known = asked.result if isinstance(asked, SealInput) else asked
    if isinstance(asked, AttemptInput | AbsentInput | SealInput) and known.request_id:
        tenant, request_id, epoch = known.tenant, known.request_id, known.epoch
    return TaskContext(tenant, request_id, epoch, workflow_id, info.workflow_run_id or "")


def _kind(body: Any) -> str:
    payload = body.get("payload") if is_table(body) else None
    return str(next(iter(payload), "")) if is_table(payload) else ""
