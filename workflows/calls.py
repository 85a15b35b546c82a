"""The activities as a workflow calls them: which queue, which limits, which retries."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from temporalio import workflow
from temporalio.common import Priority, RetryPolicy

from temporal_fabric import names
from temporal_fabric.flow_messages import FlowOpened, FlowOrder, FlowRun, FlowStepped
from temporal_fabric.messages import (
    AbsentInput,
    AttemptInput,
    ControlAnswer,
    ControlInput,
    Grant,
    Notice,
    Sealed,
    SettleAnswer,
)
from temporal_fabric.outcomes import AttemptResult

if TYPE_CHECKING:
    from temporal_fabric.flow_messages import FlowEnd, FlowStep
    from temporal_fabric.messages import AcquireInput, SealInput, SettleInput
    from temporal_fabric.questions import Resolution

FOREVER = timedelta(days=3650)
HEARTBEAT = timedelta(seconds=10)
QUEUED_HEARTBEAT = timedelta(seconds=30)  # a thousand may wait, and each beat is a write
CONTROL_LIMIT = timedelta(seconds=60)
NOTIFY_LIMIT = timedelta(seconds=60)
NOTIFY_FOR = timedelta(days=1)

STEADY = RetryPolicy(initial_interval=timedelta(seconds=1), backoff_coefficient=1.0)
PATIENT = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=30),
)
RARE = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(minutes=10),
)


def _priority(priority: int, tenant: str | None = None) -> Priority:
    return Priority(priority_key=names.temporal_priority(priority), fairness_key=tenant)


def acquire(
    queue: str, request: AcquireInput, patience: timedelta | None = None
) -> workflow.ActivityHandle[Grant]:
    """Ask for a place, or what keeps a place that is held.

    Args:
        queue: Of a pool, or of the one backend whose host is preferred.
        request: What is asked.
        patience: How long it may be left untaken; None for ever.
    """
    return workflow.start_activity(
        names.ACTIVITY_ACQUIRE,
        request,
        task_queue=queue,
        result_type=Grant,
        schedule_to_start_timeout=patience,
        start_to_close_timeout=FOREVER,
        heartbeat_timeout=QUEUED_HEARTBEAT,
        retry_policy=STEADY,
        cancellation_type=workflow.ActivityCancellationType.TRY_CANCEL,
        priority=_priority(request.priority) if request.priority else Priority.default,
        summary="admit and place",
    )


def _attempted(
    grant: Grant,
    number: int,
    failures: list[str],
    resolutions: list[Resolution],
    *,
    was_silent: bool,
    undoing: tuple[str, str] = ("", ""),
) -> AttemptInput:
    return AttemptInput(
        tenant=grant.tenant,
        request_id=grant.request_id,
        digest=grant.digest,
        epoch=grant.epoch,
        backend=grant.backend,
        number=number,
        failures=failures,
        deadline=grant.deadline,
        changes=grant.changes,
        resolutions=resolutions,
        was_silent=was_silent,
        compensation=undoing[0],
        because=undoing[1],
    )


def attempt(
    grant: Grant,
    number: int,
    failures: list[str],
    resolutions: list[Resolution],
    *,
    patience: timedelta,
    was_silent: bool,
    undoing: tuple[str, str] = ("", ""),
) -> workflow.ActivityHandle[AttemptResult]:
    """Run, or adopt, one epoch on its backend, after the run's attempts have failed so.

    Args:
        grant: The placement.
        number: Which of the run's placements it is.
        failures: How the run's attempts have failed so far.
        resolutions: What people have answered in this run so far.
        patience: How long its worker may leave it untaken.
        was_silent: Whether it has done that before.
        undoing: The compensation that is run instead of the payload, and because of what.
    """
    return workflow.start_activity(
        names.ACTIVITY_ATTEMPT,
        _attempted(grant, number, failures, resolutions, was_silent=was_silent, undoing=undoing),
        task_queue=names.backend_queue(grant.backend),
        result_type=AttemptResult,
        # Then the pool is asked what is the matter, and the grant is offered again.
        schedule_to_start_timeout=patience,
        start_to_close_timeout=FOREVER,
        heartbeat_timeout=HEARTBEAT,
        retry_policy=STEADY,
        cancellation_type=workflow.ActivityCancellationType.TRY_CANCEL,
        priority=_priority(grant.priority, grant.tenant),
        summary=f"epoch {grant.epoch} on {grant.backend}",
    )


async def flow(
    grant: Grant,
    number: int,
    failures: list[str],
    resolutions: list[Resolution],
    *,
    patience: timedelta,
    was_silent: bool,
) -> workflow.ChildWorkflowHandle[Any, AttemptResult]:
    """Run, or go on with, one epoch of a certified flow in a workflow of its own; see `attempt`."""
    info = workflow.info()
    run = FlowRun(
        attempt=_attempted(grant, number, failures, resolutions, was_silent=was_silent),
        workflow_id=info.workflow_id,
        run_id=info.run_id,
        grace_s=grant.grace_s,
        priority=grant.priority,
        patience_s=patience.total_seconds(),
    )
    return await workflow.start_child_workflow(
        names.WORKFLOW_CERTIFIED_FLOW,
        FlowOrder(run),
        id=names.flow_id(grant.tenant, grant.request_id, grant.epoch),
        task_queue=names.QUEUE,
        result_type=AttemptResult,
        parent_close_policy=workflow.ParentClosePolicy.TERMINATE,
        cancellation_type=workflow.ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
        static_summary=f"epoch {grant.epoch} on {grant.backend}",
        priority=_priority(grant.priority, grant.tenant),
    )


async def flow_open(run: FlowRun) -> FlowOpened:
    """Begin a run on its host, or find where it goes on."""
    opened: FlowOpened = await workflow.execute_activity(
        names.ACTIVITY_FLOW_OPEN,
        run,
        task_queue=names.backend_queue(run.attempt.backend),
        result_type=FlowOpened,
        schedule_to_start_timeout=timedelta(seconds=run.patience_s),
        start_to_close_timeout=FOREVER,
        heartbeat_timeout=HEARTBEAT,
        retry_policy=STEADY,
        priority=_priority(run.priority, run.attempt.tenant),
        summary="read the specification, begin or go on",
    )
    return opened


def flow_step(step: FlowStep) -> workflow.ActivityHandle[FlowStepped]:
    """Answer one question of the controller; it has ended when the handle is done."""
    state = step.standing.state
    asked, at = state["asked"], state["iteration"]
    more = f" {asked['iterations']} iterations from {at}" if "iterations" in asked else ""
    return workflow.start_activity(
        names.ACTIVITY_FLOW_STEP,
        step,
        task_queue=names.backend_queue(step.run.attempt.backend),
        result_type=FlowStepped,
        schedule_to_start_timeout=timedelta(seconds=step.run.patience_s),
        start_to_close_timeout=FOREVER,
        heartbeat_timeout=HEARTBEAT,
        retry_policy=STEADY,
        cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        priority=_priority(step.run.priority, step.run.attempt.tenant),
        summary=f"{asked['ask']}{more}",
    )


async def flow_finish(end: FlowEnd) -> AttemptResult:
    """Record the end of a flow's attempt and collect its results."""
    ended: AttemptResult = await workflow.execute_activity(
        names.ACTIVITY_FLOW_FINISH,
        end,
        task_queue=names.backend_queue(end.run.attempt.backend),
        result_type=AttemptResult,
        schedule_to_start_timeout=timedelta(seconds=end.run.patience_s),
        start_to_close_timeout=FOREVER,
        heartbeat_timeout=HEARTBEAT,
        retry_policy=PATIENT,
        summary=f"finish: {end.outcome} {end.reason}".rstrip(),
    )
    return ended


def control(grant: Grant, action: str) -> workflow.ActivityHandle[ControlAnswer]:
    """Act on the live payload of a grant, beside its attempt."""
    return workflow.start_activity(
        names.ACTIVITY_CONTROL,
        ControlInput(grant.tenant, grant.request_id, grant.epoch, grant.backend, action),
        task_queue=names.backend_queue(grant.backend),
        result_type=ControlAnswer,
        start_to_close_timeout=CONTROL_LIMIT,
        heartbeat_timeout=HEARTBEAT,
        retry_policy=PATIENT,
        cancellation_type=workflow.ActivityCancellationType.TRY_CANCEL,
        summary=f"{action} epoch {grant.epoch} on {grant.backend}",
    )


def ensure_absent(
    grant: Grant, epoch: int, backend: str, patience: timedelta | None
) -> workflow.ActivityHandle[None]:
    """Ask for the proof that nothing of an epoch runs, however long that takes.

    Args:
        grant: The placement of the run.
        epoch: Which epoch.
        backend: Where it may run.
        patience: How long its worker may leave this untaken; None for ever.
    """
    return workflow.start_activity(
        names.ACTIVITY_ENSURE_ABSENT,
        AbsentInput(grant.tenant, grant.request_id, epoch, backend, grant.grace_s),
        task_queue=names.backend_queue(backend),
        schedule_to_start_timeout=patience,
        start_to_close_timeout=FOREVER,
        heartbeat_timeout=HEARTBEAT,
        retry_policy=PATIENT,
        cancellation_type=workflow.ActivityCancellationType.TRY_CANCEL,
        summary=f"prove epoch {epoch} absent on {backend}",
    )


def settle(pool: str, request: SettleInput) -> workflow.ActivityHandle[SettleAnswer]:
    """Let a worker of the pool settle an epoch whose backend is silent."""
    word = request.resolution
    what = f"take a person's {word.answer}" if word else "revoke it if it never started"
    return workflow.start_activity(
        names.ACTIVITY_SETTLE,
        request,
        task_queue=names.pool_queue(pool),
        result_type=SettleAnswer,
        start_to_close_timeout=CONTROL_LIMIT,
        heartbeat_timeout=HEARTBEAT,
        retry_policy=PATIENT,
        cancellation_type=workflow.ActivityCancellationType.TRY_CANCEL,
        summary=f"settle epoch {request.epoch} on {request.backend}: {what}",
    )


def seal(
    backend: str, request: SealInput, patience: timedelta | None = None
) -> workflow.ActivityHandle[Sealed]:
    """Seal the capsule where the run's files lie; anywhere, where no backend has any.

    Args:
        backend: Where they lie; empty where nowhere.
        request: What is sealed.
        patience: How long its worker may leave this untaken; None for ever.
    """
    return workflow.start_activity(
        names.ACTIVITY_SEAL,
        request,
        task_queue=names.backend_queue(backend) if backend else names.QUEUE,
        result_type=Sealed,
        schedule_to_start_timeout=patience,
        start_to_close_timeout=FOREVER,
        heartbeat_timeout=HEARTBEAT,
        retry_policy=PATIENT,
        cancellation_type=workflow.ActivityCancellationType.TRY_CANCEL,
        summary=f"seal the capsule: {(request.instead or request.result).state}",
    )


async def start_notice(notice: Notice) -> None:
    """Start the workflow that tells a receiver, and return as soon as it lasts.

    An activity would be cancelled when this workflow closes; an abandoned child goes on. Its
    id is random and not made from the run's: a reset run replays it under another run id.
    """
    handle = await workflow.start_child_workflow(
        names.WORKFLOW_NOTIFY,
        notice,
        id=names.notify_id(notice.tenant, notice.request_id, notice.number, workflow.uuid4().hex),
        task_queue=names.QUEUE,
        parent_close_policy=workflow.ParentClosePolicy.ABANDON,
        cancellation_type=workflow.ChildWorkflowCancellationType.ABANDON,
        static_summary=f"tell that {notice.request_id} is {notice.state}",
        priority=_priority(1, notice.tenant),
    )
    # How it ends is shown there, and is nothing to this workflow.
    handle.add_done_callback(lambda done: done.cancelled() or done.exception())


async def notify(notice: Any) -> None:
    """Tell a receiver, for a day if need be."""
    await workflow.execute_activity(
        names.ACTIVITY_NOTIFY,
        notice,
        schedule_to_close_timeout=NOTIFY_FOR,
        start_to_close_timeout=NOTIFY_LIMIT,
        heartbeat_timeout=HEARTBEAT,
        retry_policy=RARE,
    )
