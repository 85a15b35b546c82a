"""The life of one experiment: queue, place, run, retry with backoff, seal.

The workflow decides, activities act. It takes its body unread (`Any`): a body that a typed
parameter could not decode would wedge the workflow task for ever, while `acquire` admits it
and fails the run with every problem listed.

Three rules carry the guarantees:

* After every end of `attempt` that is not a normal return, `ensure_absent` must prove that
  nothing of that epoch runs before anything else happens.
* A payload's failure is a value and is decided upon here; Temporal's own retry of `attempt`
  only means that the supervising worker died, and adopts under the same epoch.
* The life runs in a task of its own that a cancellation never interrupts: cancelling sets a
  flag, every wait looks at it, and clean-up cannot be torn.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.common import Priority, RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError

with workflow.unsafe.imports_passed_through():
    # Our own modules: pure data, without I/O and without a third-party import.
    from temporal_fabric import names
    from temporal_fabric.clock import stamp
    from temporal_fabric.messages import (
        AbsentInput,
        AcquireInput,
        AttemptInput,
        AttemptResult,
        AttemptUpdate,
        ExperimentResult,
        Grant,
        Moment,
        Sealed,
        SealInput,
    )
    from temporal_fabric.states import FREE_RETRIES, Reason, State, legal
    from temporal_fabric.workflows.decisions import (
        host_did_not_answer,
        pool_of,
        refusal,
        retried,
    )
    from temporal_fabric.workflows.view import details, search_attributes

T = TypeVar("T")

_FOREVER = timedelta(days=3650)
_HEARTBEAT = timedelta(seconds=10)

_STEADY = RetryPolicy(initial_interval=timedelta(seconds=1), backoff_coefficient=1.0)
_PATIENT = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=30),
)


class _CancelRequested(Exception):
    """A wait ended because a person cancelled the experiment."""


@workflow.defn(name=names.WORKFLOW_EXPERIMENT)
class Experiment:
    """One `ExecutionRequest` and everything that happens to it."""

    def __init__(self) -> None:
        self._state = State.QUEUED
        self._reason = ""
        self._timeline: list[Moment] = []
        self._attempts: list[AttemptResult] = []
        self._grant: Grant | None = None
        self._pool = names.DEFAULT_POOL
        self._native_id = ""
        self._cancelling = False
        self._capsule = ""

    @workflow.run
    async def run(self, body: Any = None, *more: Any) -> ExperimentResult:
        """Carry one request to its end.

        Args:
            body: The request, as the client library or a direct start gave it.
            more: Further inputs of a direct start: an error, as every other bad body.

        Returns:
            The terminal record of a run that SUCCEEDED.

        Raises:
            ApplicationError: the run FAILED (type = reason token, details = the record) or
                the body was refused (type = first error code, details = all problems).
            CancelledError: the run was cancelled, and nothing of it runs any more.
        """
        self._move(State.QUEUED)
        life = asyncio.create_task(self._life([body, *more] if more else body))
        while not life.done():
            try:
                await asyncio.shield(life)
            except asyncio.CancelledError:
                self._cancelling = True
        result = life.result()
        if result.state == State.CANCELED:
            raise asyncio.CancelledError
        if result.state == State.FAILED:
            message = result.message or result.reason
            raise ApplicationError(message, result, type=result.reason, non_retryable=True)
        return result

    @workflow.signal(name=names.SIGNAL_ATTEMPT)
    def on_attempt(self, update: AttemptUpdate) -> None:
        """Take the attempt's word that the payload runs, or that outputs are collected."""
        if self._grant is None or update.epoch != self._grant.epoch:
            return  # a superseded attempt has nothing to say
        self._native_id = update.native_id
        if update.state in {State.RUNNING, State.COLLECTING}:
            self._move(State(update.state), at=update.at)

    @workflow.query(name=names.QUERY_STATUS)
    def status(self) -> dict[str, Any]:
        """Return state, reason, placement and timeline."""
        grant = self._grant
        return {
            "state": str(self._state),
            "reason": self._reason,
            "backend": grant.backend if grant else "",
            "epoch": grant.epoch if grant else 0,
            "native_id": self._native_id,
            "capsule": self._capsule,
            "timeline": self._timeline,
        }

    @workflow.query(name=names.QUERY_ATTEMPTS)
    def attempts(self) -> list[AttemptResult]:
        """Return how every ended attempt ended."""
        return self._attempts

    async def _life(self, body: Any) -> ExperimentResult:
        try:
            result = await self._until_decided(body)
        except _CancelRequested:
            result = await self._canceled()
        if self._grant is None or self._grant.recorded is None:
            result = await self._seal(result, body)
        self._move(State(result.state), result.reason, at=result.ended_at)
        self._publish(result)
        return result

    async def _until_decided(self, body: Any) -> ExperimentResult:
        counted = 0
        grants = 0
        while True:
            grants += 1
            grant = await self._acquire(body, grants)
            if grant.recorded is not None:
                return grant.recorded
            for prior in grant.prior:
                await self._prove_absent(grant, prior.epoch, prior.backend)
            self._move(State.PREPARING, grant.reason)
            ended = await self._attempt(grant, grants)
            if ended is None:
                continue
            self._attempts.append(ended)
            if ended.ok:
                return self._result(State.SUCCEEDED, ended)
            counted += ended.reason not in FREE_RETRIES
            if not retried(grant, ended, counted):
                return self._result(State.FAILED, ended)
            await self._back_off(grant, ended, len(self._attempts))

    async def _acquire(self, body: Any, number: int) -> Grant:
        request = AcquireInput(
            body=body,
            number=number,
            memo_digest=workflow.memo_value(names.MEMO_DIGEST, "", type_hint=str),
            retry_of=workflow.memo_value(names.MEMO_RETRY_OF, "", type_hint=str),
            reset=workflow.info().run_id != workflow.info().first_execution_run_id,
        )
        self._pool = pool_of(body)
        grant = await self._ask_pool(request)
        self._grant = grant
        self._native_id = ""
        self._capsule = grant.capsule
        return grant

    async def _ask_pool(self, request: AcquireInput) -> Grant:
        handle = workflow.start_activity(
            names.ACTIVITY_ACQUIRE,
            request,
            task_queue=names.pool_queue(self._pool),
            result_type=Grant,
            start_to_close_timeout=_FOREVER,
            heartbeat_timeout=_HEARTBEAT,
            retry_policy=_STEADY,
            cancellation_type=workflow.ActivityCancellationType.TRY_CANCEL,
            summary="admit and place",
        )
        try:
            return await self._unless_cancelled(handle)
        except ActivityError as exc:
            self._move(State.FAILED, Reason.REFUSED)
            raise refusal(exc) from exc

    async def _attempt(self, grant: Grant, number: int) -> AttemptResult | None:
        """Run one epoch; None means that the grant was stale and a new one is needed."""
        request = AttemptInput(
            tenant=grant.tenant,
            request_id=grant.request_id,
            digest=grant.digest,
            epoch=grant.epoch,
            backend=grant.backend,
            number=number,
        )
        try:
            ended = None
            while ended is None:
                ended = await self._supervised(grant, request)
        except ActivityError as exc:
            await self._prove_absent(grant, grant.epoch, grant.backend)
            if isinstance(exc.cause, ApplicationError) and exc.cause.type == names.STALE_GRANT:
                return None
            return AttemptResult(
                epoch=grant.epoch,
                backend=grant.backend,
                ok=False,
                reason=Reason.INTERNAL,
                message=str(exc.cause or exc),
                ended_at=stamp(workflow.now()),
            )
        except _CancelRequested:
            self._move(State.CANCELLING)
            await self._prove_absent(grant, grant.epoch, grant.backend)
            raise
        return ended

    async def _supervised(self, grant: Grant, request: AttemptInput) -> AttemptResult | None:
        """Wait for the attempt; None means its host did not take it, and it is offered again."""
        try:
            return await self._unless_cancelled(self._start_attempt(grant, request))
        except ActivityError as exc:
            if not host_did_not_answer(exc):
                raise
        answer = await self._ask_pool(AcquireInput(None, number=request.number, held=grant))
        self._reason = answer.reason
        self._show()
        return None

    def _start_attempt(
        self, grant: Grant, request: AttemptInput
    ) -> workflow.ActivityHandle[AttemptResult]:
        return workflow.start_activity(
            names.ACTIVITY_ATTEMPT,
            request,
            task_queue=names.backend_queue(grant.backend),
            result_type=AttemptResult,
            # Then the pool is asked what is the matter, and the grant is offered again.
            schedule_to_start_timeout=timedelta(seconds=grant.patience_s),
            start_to_close_timeout=_FOREVER,
            heartbeat_timeout=_HEARTBEAT,
            retry_policy=_STEADY,
            cancellation_type=workflow.ActivityCancellationType.TRY_CANCEL,
            priority=Priority(
                priority_key=names.temporal_priority(grant.priority), fairness_key=grant.tenant
            ),
            summary=f"epoch {grant.epoch} on {grant.backend}",
        )

    async def _prove_absent(self, grant: Grant, epoch: int, backend: str) -> None:
        await workflow.execute_activity(
            names.ACTIVITY_ENSURE_ABSENT,
            AbsentInput(grant.tenant, grant.request_id, epoch, backend, grant.grace_s),
            task_queue=names.backend_queue(backend),
            start_to_close_timeout=_FOREVER,
            heartbeat_timeout=_HEARTBEAT,
            retry_policy=_PATIENT,
            summary=f"prove epoch {epoch} absent on {backend}",
        )

    async def _back_off(self, grant: Grant, ended: AttemptResult, attempt: int) -> None:
        rule = grant.retry
        pause = min(rule.max_interval_s, rule.initial_interval_s * rule.backoff ** (attempt - 1))
        self._move(State.RETRYING, ended.reason)
        try:
            await workflow.wait_condition(
                lambda: self._cancelling,
                timeout=timedelta(seconds=pause),
                timeout_summary=f"back off after {ended.reason}",
            )
        except TimeoutError:
            return
        raise _CancelRequested

    async def _unless_cancelled(self, handle: workflow.ActivityHandle[T]) -> T:
        await workflow.wait_condition(lambda: handle.done() or self._cancelling)
        if handle.done():
            return handle.result()
        handle.cancel()
        raise _CancelRequested

    async def _canceled(self) -> ExperimentResult:
        self._move(State.CANCELLING)
        return self._result(State.CANCELED, None)

    async def _seal(self, result: ExperimentResult, body: Any) -> ExperimentResult:
        grant = self._grant
        request = SealInput(result, None if grant else body)
        try:
            sealed: Sealed = await workflow.execute_activity(
                names.ACTIVITY_SEAL,
                request,
                task_queue=names.backend_queue(grant.backend) if grant else names.QUEUE,
                result_type=Sealed,
                start_to_close_timeout=_FOREVER,
                heartbeat_timeout=_HEARTBEAT,
                retry_policy=_PATIENT,
                summary=f"seal the capsule: {result.state}",
            )
        except ActivityError as exc:
            if grant is not None:
                raise
            # Cancelled before anything was admitted, and the body is not even a request:
            # there is no tenant and no id to keep a capsule under.
            workflow.logger.info("no capsule for a refused request: %s", exc.cause)
            return result
        self._capsule = sealed.capsule
        if sealed.integrity:
            return replace(
                result,
                state=State.FAILED,
                reason=sealed.reason or Reason.INTEGRITY,
                message=sealed.integrity,
                capsule=sealed.capsule,
            )
        return replace(result, capsule=sealed.capsule)

    def _result(self, state: State, ended: AttemptResult | None) -> ExperimentResult:
        grant = self._grant
        at = stamp(workflow.now())
        last = ended or AttemptResult(epoch=grant.epoch if grant else 0, backend="", ok=False)
        return ExperimentResult(
            state=state,
            tenant=grant.tenant if grant else "",
            request_id=grant.request_id if grant else "",
            digest=grant.digest if grant else "",
            reason="" if state == State.SUCCEEDED else last.reason,
            message=last.message,
            exit_code=last.exit_code,
            signal=last.signal,
            stderr_excerpt=last.stderr_excerpt,
            backend=grant.backend if grant else "",
            epoch=last.epoch,
            started_at=self._timeline[0].at,
            ended_at=at,
            capsule=grant.capsule if grant else "",
            outputs=last.outputs,
            attempts=self._attempts,
            timeline=[*self._timeline, Moment(state, at, last.reason, last.backend, last.epoch)],
        )

    def _move(self, state: State, reason: str = "", *, at: str = "") -> None:
        if self._timeline and not legal(self._state, state):
            return
        self._state, self._reason = state, reason
        grant = self._grant
        self._timeline.append(
            Moment(
                state=state,
                at=at or stamp(workflow.now()),
                reason=reason,
                backend=grant.backend if grant else "",
                epoch=grant.epoch if grant else 0,
            )
        )
        self._show()

    def _show(self) -> None:
        """Tell the story to Temporal's own UI: current details and search attributes."""
        grant = self._grant
        workflow.set_current_details(
            details(self._timeline, self._reason, grant, self._native_id, self._capsule)
        )
        if grant is not None and grant.search_attributes:
            workflow.upsert_search_attributes(  # pyright: ignore[reportUnknownMemberType]
                search_attributes(self._state, self._reason, grant)
            )

    def _publish(self, result: ExperimentResult) -> None:
        workflow.upsert_memo(
            {
                names.MEMO_STATE: result.state,
                names.MEMO_REASON: result.reason,
                names.MEMO_CAPSULE: result.capsule,
            }
        )
