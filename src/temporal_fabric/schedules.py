"""Experiments on a calendar: Temporal's own Schedules, each firing an experiment of its own.

A firing's request id is ``<id>-20261121t080000z``, so three firings are three experiments
with three capsules.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleBackfill,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleState,
)
from temporalio.common import Priority
from temporalio.service import RPCError, RPCStatusCode

from temporal_fabric import names
from temporal_fabric.clock import stamp
from temporal_fabric.connection import asking, server_error
from temporal_fabric.errors import ExperimentNotFound, Problem, RequestRejected

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime, timedelta

    from temporalio.client import ScheduleHandle, ScheduleListDescription

    from temporal_fabric.requests.admission import Admission


@dataclass(slots=True)
class ScheduleSummary:
    """One Schedule."""

    id: str
    paused: bool
    note: str = ""
    next: list[str] = field(default_factory=list[str])
    """The next firings, UTC."""

    recent: list[str] = field(default_factory=list[str])
    """Workflow ids of the newest firings."""


class Schedules:
    """The Schedules of experiments in one namespace."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def create(
        self,
        schedule_id: str,
        admission: Admission,
        *,
        cron: Sequence[str] = (),
        every: timedelta | None = None,
        time_zone: str | None = None,
        overlap: str = "ALLOW_ALL",
        paused: bool = False,
    ) -> None:
        """Create a Schedule.

        Args:
            schedule_id: Id of the Schedule.
            admission: The admitted request that each firing runs.
            cron: Cron expressions.
            every: An interval instead of, or beside, them.
            time_zone: Name such as ``Europe/Berlin``; UTC by default.
            overlap: What to do when the last firing still runs: SKIP, BUFFER_ONE,
                BUFFER_ALL, CANCEL_OTHER, TERMINATE_OTHER or ALLOW_ALL.
            paused: Create it without starting it.

        Raises:
            RequestRejected: E_CONFLICT where the id is taken, E_PARSE for a bad expression.
        """
        spec = ScheduleSpec(
            cron_expressions=list(cron),
            intervals=[ScheduleIntervalSpec(every)] if every else [],
            time_zone_name=time_zone,
        )
        schedule = Schedule(
            action=_action(admission),
            spec=spec,
            policy=SchedulePolicy(overlap=ScheduleOverlapPolicy[overlap]),
            state=ScheduleState(paused=paused),
        )
        try:
            await self._client.create_schedule(schedule_id, schedule)
        except ScheduleAlreadyRunningError as exc:
            message = f"a schedule {schedule_id!r} exists: delete it first, or choose another id"
            raise RequestRejected([Problem("E_CONFLICT", "/schedule", message)]) from exc
        except RPCError as exc:
            if exc.status != RPCStatusCode.INVALID_ARGUMENT:
                raise server_error(exc, "the server did not answer") from exc
            raise RequestRejected([Problem("E_PARSE", "/schedule", str(exc))]) from exc

    async def list(self) -> list[ScheduleSummary]:
        """Return every Schedule that starts experiments."""
        found: list[ScheduleSummary] = []
        with asking():
            async for entry in await self._client.list_schedules():
                summary = _summary(entry)
                if summary is not None:
                    found.append(summary)
        return found

    async def pause(self, schedule_id: str, *, note: str = "") -> None:
        """Stop firing until it is resumed."""
        await self._do(schedule_id, lambda handle: handle.pause(note=note or None))

    async def resume(self, schedule_id: str) -> None:
        """Fire again."""
        await self._do(schedule_id, lambda handle: handle.unpause())

    async def trigger(self, schedule_id: str) -> None:
        """Fire once now."""
        await self._do(schedule_id, lambda handle: handle.trigger())

    async def backfill(self, schedule_id: str, start: datetime, end: datetime) -> None:
        """Fire for every time between two moments, as if they came now."""
        overlap = ScheduleOverlapPolicy.ALLOW_ALL
        span = ScheduleBackfill(start_at=start, end_at=end, overlap=overlap)
        await self._do(schedule_id, lambda handle: handle.backfill(span))

    async def delete(self, schedule_id: str) -> None:
        """Remove the Schedule; its experiments stay."""
        await self._do(schedule_id, lambda handle: handle.delete())

    async def _do(self, schedule_id: str, act: Callable[[ScheduleHandle], Awaitable[None]]) -> None:
        try:
            await act(self._client.get_schedule_handle(schedule_id))
        except RPCError as exc:
            if exc.status == RPCStatusCode.NOT_FOUND:
                raise ExperimentNotFound(
                    f"no such schedule [id={schedule_id}]: 'temporal-fabric schedule list' "
                    "shows what there is"
                ) from exc
            raise server_error(exc, "the server did not answer") from exc


def _summary(entry: ScheduleListDescription) -> ScheduleSummary | None:
    """Return what a listing shows; None for a Schedule that starts something else."""
    schedule, info = entry.schedule, cast("Any", entry.info)
    if schedule is None or getattr(schedule.action, "workflow", "") != names.WORKFLOW_EXPERIMENT:
        return None
    return ScheduleSummary(
        id=entry.id,
        paused=schedule.state.paused,
        note=schedule.state.note or "",
        next=[stamp(at) for at in info.next_action_times[:3]],
        recent=[str(getattr(result.action, "workflow_id", "")) for result in info.recent_actions],
    )


def _action(admission: Admission) -> ScheduleActionStartWorkflow:
    request = admission.request
    return ScheduleActionStartWorkflow(
        names.WORKFLOW_EXPERIMENT,
        request.to_body(),
        id=names.workflow_id(request.tenant, request.id),
        task_queue=names.QUEUE,
        memo={names.MEMO_DIGEST: admission.digest, names.MEMO_NAME: request.name or ""},
        static_summary=f"{request.name or request.id} ({request.kind}, for {request.tenant})",
        priority=Priority(
            priority_key=names.temporal_priority(request.priority), fairness_key=request.tenant
        ),
    )
