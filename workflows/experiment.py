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
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    # Our own modules: without I/O and without a third-party import.
    from temporal_fabric import names
    from temporal_fabric.clock import stamp
    from temporal_fabric.messages import AttemptUpdate
    from temporal_fabric.outcomes import AttemptResult, ExperimentResult
    from temporal_fabric.questions import Answer
    from temporal_fabric.states import FREE_RETRIES, Reason, State
    from temporal_fabric.workflows.decisions import back_off_s, denied, overdue, retried
    from temporal_fabric.workflows.holding import asked, check_answer, given_up, resolve
    from temporal_fabric.workflows.pausing import check_pause, check_priority
    from temporal_fabric.workflows.placement import Placement
    from temporal_fabric.workflows.rollback import rolled_back
    from temporal_fabric.workflows.sealing import sealed
    from temporal_fabric.workflows.standing import Standing
    from temporal_fabric.workflows.supervision import Supervision
    from temporal_fabric.workflows.wishes import (
        CancelRequested,
        DeadlinePassed,
        GivenUp,
        Wishes,
    )


@workflow.defn(name=names.WORKFLOW_EXPERIMENT)
class Experiment:
    """One `ExecutionRequest` and everything that happens to it."""

    def __init__(self) -> None:
        self._standing = Standing()
        self._wishes = Wishes()

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
        self._standing.move(State.QUEUED)
        life = asyncio.create_task(self._told([body, *more] if more else body))
        while not life.done():
            try:
                await asyncio.shield(life)
            except asyncio.CancelledError:
                self._wishes.cancelled = True
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
        standing = self._standing
        if standing.grant is None or update.epoch != standing.grant.epoch:
            return  # a superseded attempt has nothing to say
        standing.native_id = update.native_id or standing.native_id
        standing.heard, at = workflow.now(), update.at
        if standing.state == State.HELD:
            standing.unasked()  # its backend is back, so there is nothing to be asked
            at = ""
        if standing.state == State.PAUSED and update.state == State.RUNNING:
            return  # a new worker has adopted the payload, which stands still all the same
        if update.state in {State.RUNNING, State.COLLECTING, State.PAUSED}:
            standing.move(State(update.state), at=at)

    @workflow.query(name=names.QUERY_STATUS)
    def status(self) -> dict[str, Any]:
        """Return state, reason, placement and timeline."""
        return self._standing.as_dict()

    @workflow.query(name=names.QUERY_ATTEMPTS)
    def attempts(self) -> list[AttemptResult]:
        """Return how every ended attempt ended."""
        return self._standing.attempts

    @workflow.update(name=names.UPDATE_PAUSE)
    async def pause(self) -> dict[str, Any]:
        """Let the experiment stand still: in line, between attempts, or its payload itself.

        While it is PREPARING or HELD the answer comes at once, and it is paused as soon as it
        runs, or before its next attempt.

        Raises:
            ApplicationError: E_CONFLICT; it cannot be paused, or has ended before it was.
        """
        return await self._granted(paused=True)

    @pause.validator
    def _check_pause(self) -> None:
        check_pause(self._standing)

    @workflow.update(name=names.UPDATE_RESUME)
    async def resume(self) -> dict[str, Any]:
        """Let the experiment go on where it stood still; nothing where it does not.

        Raises:
            ApplicationError: E_CONFLICT; it has ended before it could go on.
        """
        return await self._granted(paused=False)

    @workflow.update(name=names.UPDATE_REPRIORITISE)
    def reprioritise(self, priority: Any) -> dict[str, Any]:
        """Change how urgent it is, 1 to 10; while it waits it changes its place in line.

        Raises:
            ApplicationError: E_RANGE, it is no such number; E_CONFLICT, it waits no more.
        """
        self._wishes.priority = priority
        if self._standing.grant is not None:
            self._standing.grant = replace(self._standing.grant, priority=priority)
            self._standing.show()
        return self._standing.as_dict()

    @reprioritise.validator
    def _check_priority(self, priority: Any) -> None:
        check_priority(self._standing, priority)

    @workflow.update(name=names.UPDATE_RESOLVE)
    async def resolve(self, given: Any) -> dict[str, Any]:
        """Take a person's answer to the question that HELD the experiment.

        Args:
            given: See `temporal_fabric.workflows.holding.check_answer`.

        Raises:
            ApplicationError: E_CONFLICT; somebody else answered otherwise, or the question
                had lost its object.
        """
        word = await resolve(self._standing, self._wishes, given)
        if word is None:
            why = "the question has no object any more: the backend answered by itself"
            raise ApplicationError(why, type="E_CONFLICT")
        return self._standing.as_dict()

    @resolve.validator
    def _check_answer(self, given: Any) -> None:
        check_answer(self._standing, self._wishes, given)

    async def _granted(self, *, paused: bool) -> dict[str, Any]:
        """Change the wish, and return when it is so."""
        standing, wishes = self._standing, self._wishes
        wishes.paused, wishes.refused = paused, ""
        settled = {State.PREPARING, State.HELD} if paused else set[State]()
        await workflow.wait_condition(
            lambda: (
                (standing.state == State.PAUSED) is paused
                or standing.state in settled
                or standing.state.final
                or wishes.cancelled
                or wishes.paused is not paused
            )
        )
        if wishes.refused:
            raise ApplicationError(wishes.refused, type="E_CONFLICT")
        if paused and (standing.state.final or wishes.cancelled):
            raise ApplicationError("it ended before it could be paused", type="E_CONFLICT")
        return standing.as_dict()

    async def _told(self, body: Any) -> ExperimentResult:
        """Live the life; whoever is told of it needs this workflow no more afterwards."""
        try:
            return await self._life(body)
        finally:
            await self._standing.notices.started()

    async def _life(self, body: Any) -> ExperimentResult:
        standing = self._standing
        placement = Placement(body, standing, self._wishes)
        try:
            result = await self._until_decided(placement)
        except CancelRequested:
            standing.move(State.CANCELLING)
            result = standing.result(State.CANCELED, None)
        except DeadlinePassed:
            result = standing.result(State.FAILED, overdue(standing.grant, stamp(workflow.now())))
        except GivenUp as exc:
            standing.move(State.COLLECTING, Reason.LOST)
            result = standing.result(State.FAILED, given_up(exc, stamp(workflow.now())))
        if result.state != State.SUCCEEDED and standing.may_have_run:
            unknown = any(word.answer == Answer.ABORT for word in standing.resolutions)
            result = await rolled_back(result, standing, self._wishes, placement, unknown=unknown)
        if standing.grant is None or standing.grant.recorded is None:
            result = await sealed(result, body, standing, self._wishes, placement)
        standing.end(result)
        # Who asked for something gets an answer before the workflow closes.
        self._wishes.answer = None
        await workflow.wait_condition(workflow.all_handlers_finished)
        return result

    async def _until_decided(self, placement: Placement) -> ExperimentResult:
        standing, counted = self._standing, 0
        while True:
            grant = await placement.next()
            if grant.recorded is not None:
                return grant.recorded
            if grant.denied:
                no_place = denied(grant, standing.attempts, stamp(workflow.now()))
                return standing.result(State.FAILED, no_place)
            ended = await Supervision(grant, standing, self._wishes, placement).run()
            if ended is None:
                continue
            standing.attempt_ended(ended)
            if ended.question:
                ended = await asked(ended, standing, self._wishes)
            if ended.ok:
                return standing.result(State.SUCCEEDED, ended)
            counted += not ended.answer and ended.reason not in FREE_RETRIES
            if not retried(grant, ended, counted):
                return standing.result(State.FAILED, ended)
            standing.move(State.RETRYING, ended.reason)
            await self._wishes.time(
                timedelta(seconds=back_off_s(grant.retry, len(standing.attempts))),
                f"back off after {ended.reason}",
                standing,
            )
