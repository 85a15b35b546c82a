"""One attempt of a certified flow: the controller decides here, activities compute.

It is a child of its experiment, so that a long run may go on in a new history while the
experiment keeps its own. The controller is the pure state machine of `flows.controller`, of the
standard library alone; each of its questions is one activity on the queue of the backend that
was placed, and a pure function from the last good checkpoint: it may be repeated, by any worker
of that host, and gives the same bits. Arrays stay on the host, and history has decisions and
references only.

A stop (cancellation, deadline, preemption) is not the controller's business. It ends the run
between two questions, or after the grace within one: either way the last good checkpoint, and the
state to go on from, are on disk. That a more urgent experiment waits for its place is told with
the answer to a question, so a flow that is preempted always ends between two.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from temporalio import workflow
from temporalio.converter import value_to_type
from temporalio.exceptions import ActivityError, ApplicationError, TemporalError

with workflow.unsafe.imports_passed_through():
    # Our own modules: without I/O and without a third-party import.
    from temporal_fabric import names
    from temporal_fabric.clock import stamp
    from temporal_fabric.flow_messages import FlowEnd, FlowOrder, FlowStep, shown
    from temporal_fabric.flows.commands import Command, Finish, Outcome, Record
    from temporal_fabric.flows.controller import advance
    from temporal_fabric.flows.controller_state import ControllerState, Policy
    from temporal_fabric.flows.reports import report_from_json
    from temporal_fabric.flows.run_events import RunEvent
    from temporal_fabric.messages import AttemptUpdate
    from temporal_fabric.outcomes import AttemptResult
    from temporal_fabric.states import Reason, State
    from temporal_fabric.workflows import calls

if TYPE_CHECKING:
    from collections.abc import Iterable

    from temporal_fabric.flow_messages import FlowOpened, FlowRun, FlowStanding, Json

_STOPS: dict[str, tuple[Outcome, RunEvent]] = {
    Reason.TIMEOUT: (Outcome.FAILED, RunEvent.TIMEOUT),
    Reason.PREEMPTED: (Outcome.FAILED, RunEvent.CANCELLED),
}
"""What a stop for a reason means; without a reason a person cancelled."""


@dataclass
class _Going:
    """An attempt under way."""

    run: FlowRun
    opened: FlowOpened
    standing: FlowStanding


@workflow.defn(name=names.WORKFLOW_CERTIFIED_FLOW)
class CertifiedFlow:
    """One attempt of a flow, from its specification to its collected results."""

    def __init__(self) -> None:
        self._going: _Going | None = None
        self._paused = False
        self._stop: str | None = None
        """Reason token of a stop that was asked for, empty for a person's; None: none was."""

        self._how = "stopped"
        """How it came to the stop, for the message."""

    @workflow.run
    async def run(self, order: Any = None) -> AttemptResult:
        """Carry one attempt to its end.

        Args:
            order: A `FlowOrder`, unread: a body that does not decode would wedge the workflow.

        Returns:
            How it ended; that a certificate failed is a value.

        Raises:
            ApplicationError: it is no order.
            ActivityError: no worker took it in time, or its epoch is not the newest.
        """
        try:
            read: FlowOrder = value_to_type(FlowOrder, order)
        except Exception as exc:
            text = "a CertifiedFlow is started by its experiment"
            raise ApplicationError(text, type=Reason.REFUSED, non_retryable=True) from exc
        self._paused = read.paused
        life = asyncio.create_task(self._live(read))
        while not life.done():
            try:
                await asyncio.shield(life)
            except asyncio.CancelledError:
                # Its experiment stops it by a signal: this came from elsewhere.
                self._stop = self._stop or Reason.PREEMPTED
        return life.result()

    @workflow.signal(name=names.SIGNAL_FLOW_PAUSE)
    def on_pause(self, paused: bool) -> None:  # noqa: FBT001 - a signal's arguments have no names
        """Stand still after the chunk under way, or go on."""
        self._paused = paused

    @workflow.signal(name=names.SIGNAL_FLOW_STOP)
    def on_stop(self, reason: str) -> None:
        """End after the chunk under way, or after the grace."""
        self._stop = reason if self._stop is None else self._stop

    @workflow.query(name=names.QUERY_STATUS)
    def status(self) -> dict[str, Any]:
        """Return what a heartbeat would: state, phase, iteration, energy."""
        return {} if self._going is None else shown(self._going.standing)

    async def _live(self, order: FlowOrder) -> AttemptResult:
        opened, standing = order.opened, order.standing
        if opened is None:
            opened = await calls.flow_open(order.run)
            standing = opened.standing
            if standing is not None:
                await _tell(order.run, opened, State.RUNNING, opened.at)
        if standing is None:
            return _unopened(order.run, opened)
        self._going = going = _Going(order.run, opened, standing)
        policy = Policy.from_json(standing.policy)
        state, commands = ControllerState.from_json(standing.state), tuple[Command, ...]()
        while state.finished is None and await self._may_go_on(going):
            report = await self._answer(going)
            if report is None:
                break
            state, commands = advance(policy, state, report_from_json(report))
            going.standing = replace(going.standing, state=state.as_json())
        if state.finished is None:
            return await _finish(going, *_stopped(self._stop or "", self._how))
        return await _finish(going, state.finished, [c for c in commands if isinstance(c, Record)])

    async def _may_go_on(self, going: _Going) -> bool:
        """Stand still while that is wanted; say whether the next question is asked."""
        if self._paused and self._stop is None:
            await _tell(going.run, going.opened, State.PAUSED, stamp(workflow.now()))
            await workflow.wait_condition(lambda: not self._paused or self._stop is not None)
        if self._stop is None and workflow.info().is_continue_as_new_suggested():
            workflow.continue_as_new(
                FlowOrder(going.run, going.opened, going.standing, self._paused)
            )
        return self._stop is None

    async def _answer(self, going: _Going) -> Json | None:
        """Ask the controller's question; None where a stop did not wait for the answer."""
        before = going.standing
        going.standing = standing = replace(before, number=before.number + 1)
        handle = calls.flow_step(FlowStep(going.run, standing, going.opened.native_id))
        await workflow.wait_condition(lambda: handle.done() or self._stop is not None)
        if not handle.done():
            grace = timedelta(seconds=going.run.grace_s)
            with suppress(TimeoutError):
                await workflow.wait_condition(
                    handle.done, timeout=grace, timeout_summary="the chunk under way"
                )
        if not handle.done():
            handle.cancel()
            with suppress(ActivityError, asyncio.CancelledError):
                await handle
            return None
        done = handle.result()
        if done.gives_way and self._stop is None:
            self._stop = Reason.PREEMPTED
            self._how = "left its place to a more urgent experiment"
        going.standing = replace(
            standing,
            good=done.good or standing.good,
            energy=standing.energy if done.energy is None else done.energy,
            grad_norm=standing.grad_norm if done.grad_norm is None else done.grad_norm,
        )
        return done.report


async def _finish(going: _Going, ended: Finish, events: Iterable[Record]) -> AttemptResult:
    last = replace(going.standing, number=going.standing.number + 1)
    told = [{"event": one.event.value, "payload": dict(one.payload)} for one in events]
    end = FlowEnd(
        going.run, last, going.opened, ended.outcome.value, ended.reason, ended.message, told
    )
    return await calls.flow_finish(end)


async def _tell(run: FlowRun, opened: FlowOpened, state: State, at: str) -> None:
    """Tell the experiment what only it can show."""
    parent = workflow.get_external_workflow_handle(run.workflow_id, run_id=run.run_id)
    update = AttemptUpdate(state, at, opened.native_id, run.attempt.epoch)
    # Where the experiment is gone, this workflow is about to be ended too.
    with suppress(TemporalError):
        await parent.signal(names.SIGNAL_ATTEMPT, update)


def _stopped(reason: str, how: str) -> tuple[Finish, list[Record]]:
    """Return the end that a stop makes of a run, and what is recorded of it."""
    outcome, event = _STOPS.get(reason, (Outcome.CANCELED, RunEvent.CANCELLED))
    records = [
        Record(event, {"why": reason or "cancelled"}),
        Record(RunEvent.RUN_FINISHED, {"outcome": outcome.value, "reason": reason}),
    ]
    return Finish(outcome, reason, f"{how}; its last good checkpoint is kept"), records


def _unopened(run: FlowRun, opened: FlowOpened) -> AttemptResult:
    attempt = run.attempt
    return AttemptResult(
        epoch=attempt.epoch,
        backend=attempt.backend,
        ok=False,
        reason=opened.reason or Reason.INTERNAL,
        message=opened.message,
        ended_at=stamp(workflow.now()),
        changes=attempt.changes,
    )
