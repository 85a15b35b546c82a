"""Admit a request and give it a place: the first activity of every run.

It runs in a worker and not in workflow code, because CEL is native code and because a
refusal must be an ordinary failure with every problem in its details.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from temporalio import activity
from temporalio.converter import value_to_type
from temporalio.exceptions import ApplicationError

from temporal_fabric import names
from temporal_fabric.activities import queueing
from temporal_fabric.activities.dependencies import Dependencies
from temporal_fabric.activities.desk import Desk, rejection
from temporal_fabric.activities.elsewhere import (
    leave_to_others,
    wait_for_its_host,
    with_neighbours,
)
from temporal_fabric.activities.gpu_line import Turn
from temporal_fabric.activities.heartbeat import beating
from temporal_fabric.activities.notify import rules
from temporal_fabric.activities.placement import place
from temporal_fabric.activities.queueing import Denied, before
from temporal_fabric.activities.silence import is_away
from temporal_fabric.activities.tenancy import check_tenant
from temporal_fabric.adapters.capabilities import Pausing
from temporal_fabric.artifacts.workdirs import absent_workdir
from temporal_fabric.clock import from_unix
from temporal_fabric.errors import Problem, RequestRejected, StoreConflict
from temporal_fabric.failpoints import FailPoint, reach
from temporal_fabric.messages import AcquireInput, CompensationRule, Grant, PriorEpoch, RetryRule
from temporal_fabric.outcomes import ExperimentResult
from temporal_fabric.requests import admit
from temporal_fabric.requests.changes import after_failures, differences
from temporal_fabric.requests.compensating import compensating
from temporal_fabric.requests.moments import deadline_at
from temporal_fabric.shapes import is_table
from temporal_fabric.states import Reason, State
from temporal_fabric.verdicts import unplaceable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from temporal_fabric.record import Epoch, RequestRecord
    from temporal_fabric.requests import ExecutionRequest
    from temporal_fabric.requests.admission import Admission


_SPENT = "inputs_s"
"""Of a heartbeat: how long the experiment has waited for inputs, which is no waiting in line."""

_BEATS_A_SECOND = 10
"""Of all that wait: each is a write of the server, and costs it as much as a workflow task."""

_LONGEST_PAUSE_S = 10.0
"""A third of the heartbeat timeout of what waits."""


class Acquire:
    """The ``acquire`` activity of one worker."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._dependencies = Dependencies(desk)
        self._spent: dict[str, float] = {}
        self._hostless: set[str] = set()

    @activity.defn(name=names.ACTIVITY_ACQUIRE)
    async def acquire(self, asked: AcquireInput) -> Grant:
        """Admit the body, open its record, choose a backend and allocate the epoch.

        Raises:
            ApplicationError: non-retryable, type = first error code, details = all problems.
        """
        async with beating(self._waiting, self._pause_s):
            if asked.held is not None:
                return replace(asked.held, reason=await self._waits_for(asked.held))
            try:
                return await self._place(asked)
            except RequestRejected as exc:
                raise rejection(exc) from exc

    def _pause_s(self) -> float:
        """Return the least pause before a heartbeat: of a long line each one beats less often."""
        waiting = sum(count for _, _, count in self._desk.places())
        return min(waiting / _BEATS_A_SECOND, _LONGEST_PAUSE_S)

    def _waiting(self) -> dict[str, Any]:
        """Return what the UI shows while the request waits for a place."""
        key = activity.info().workflow_id or ""
        told = queueing.waiting(self._desk, key) or self._desk.gpu_line.waiting(key)
        told = told or self._dependencies.waiting(key)
        if key in self._hostless:
            told = {"reason": Reason.BACKEND_DOWN}
        return told | {_SPENT: spent} if (spent := self._spent.get(key)) else told

    async def _place(self, asked: AcquireInput) -> Grant:
        info = activity.info()
        if info.workflow_run_id is None or info.workflow_id is None:
            raise ApplicationError("acquire is an activity of an experiment", non_retryable=True)
        admission = await asyncio.to_thread(admit, asked.body, workflow_id=info.workflow_id)
        request = admission.request
        if asked.compensation:
            request = compensating(request, asked.compensation)
            admission = replace(admission, request=request)
        record = self._desk.record(request.tenant, request.id)
        finished = await self._finished(record, admission, asked)
        more = finished is None and not await self._placed(record, asked)
        await check_tenant(request, info.workflow_id, self._desk, limits=more)
        if finished is not None:
            return finished
        grant, fitting = await self._fitting(record, admission, asked)
        if grant.denied:
            return grant
        if absent := await asyncio.to_thread(absent_workdir, request, self._desk.store.objects):
            raise RequestRejected([absent])
        try:
            backend = await self._wait(record, admission, asked, grant, fitting)
        except Denied as exc:
            return replace(grant, denied=str(exc), denied_reason=exc.reason)
        return await self._placed_on(backend, grant, record, asked.number)

    async def _placed_on(
        self, backend: str, grant: Grant, record: RequestRecord, number: int
    ) -> Grant:
        """Allocate the epoch and return the whole grant."""
        info = activity.info()
        workflow_id, run_id = info.workflow_id or "", info.workflow_run_id or ""
        epoch = await record.allocate(run_id, number, backend, workflow_id=workflow_id)
        reach(FailPoint.ACQUIRE_ALLOCATED)
        if epoch.backend != backend:
            # An earlier delivery of this activity was granted another place: that one stands.
            self._desk.capacity(backend).release(workflow_id)
            if epoch.backend in self._desk.backends:
                self._desk.capacity(epoch.backend).hold(workflow_id)
        epochs, ended = await asyncio.gather(record.epochs(), record.ended())
        lower = [known for known in epochs if known.epoch < epoch.epoch]
        return replace(
            grant,
            epoch=epoch.epoch,
            backend=epoch.backend,
            capsule=self._capsule(record, run_id, epochs),
            search_attributes=self._desk.search_attributes,
            prior=[PriorEpoch(k.epoch, k.backend) for k in lower if k.epoch not in ended],
            patience_s=self._desk.patience(epoch.backend),
            pausable=isinstance(self._desk.backend(epoch.backend), Pausing),
        )

    async def _fitting(
        self, record: RequestRecord, admission: Admission, asked: AcquireInput
    ) -> tuple[Grant, list[str]]:
        """Return the grant but for its place, and the backends that could be that.

        There are none where it is denied, and where its host is not there any more.

        Raises:
            RequestRejected: no backend could ever run the request as it was submitted.
            ApplicationError: retryable, it is left to another host of the pool.
        """
        request = admission.request
        wanted = after_failures(request, asked.failures)
        grant = replace(
            _grant(admission),
            priority=asked.priority or request.priority,
            changes=differences(request, wanted),
            deadline=deadline_at(request.deadline, asked.submitted),
        )
        answer = await place(wanted, self._desk)
        fitting = [verdict.backend for verdict in answer.verdicts if verdict.ok]
        fitting.sort(key=lambda backend: backend in asked.avoided)
        if not fitting:
            host, queue = self._desk.host, activity.info().task_queue
            answer = await with_neighbours(answer, wanted, host, queue)
            first = not asked.failures and not asked.compensation
            if first and not answer.backend and await record.digest() == admission.digest:
                return (grant, [])  # It was accepted, and is not refused for want of a host.
            leave_to_others(answer, host)
            if first:
                raise unplaceable(answer)
            more = f" with {', '.join(grant.changes)}" if grant.changes else ""
            why = unplaceable(answer).problems[0].message
            return (replace(grant, denied=f"not tried again{more}: {why}"), [])
        return (grant, fitting)

    async def _wait(
        self,
        record: RequestRecord,
        admission: Admission,
        asked: AcquireInput,
        grant: Grant,
        fitting: list[str],
    ) -> str:
        """Wait for what the request needs, then for a place; return the backend."""
        request, info = admission.request, activity.info()
        patience, key = request.queue_timeout, info.workflow_id or ""
        async with before(grant.deadline, Reason.TIMEOUT, f"not placed by {grant.deadline}"):
            spent = await self._settle(request, key)
            reach(FailPoint.ACQUIRE_PLACED)
            await self._open(record, admission)
            reach(FailPoint.ACQUIRE_OPENED)
            # Waiting for an input is not waiting for a backend, and being paused is neither.
            begun = info.scheduled_time.timestamp() + spent - asked.waited_s
            until = "" if patience is None else from_unix(begun + patience)
            message = f"no backend had a place within the queue_timeout of {patience} s"
            try:
                moves = asked.near and await self._desk.copies.exist(request.tenant, request.id)
                asked = replace(asked, near=moves)
                async with before(until, Reason.NO_BACKEND, message):
                    if not fitting:
                        self._hostless.add(key)
                        await wait_for_its_host(self._desk.host)
                    turn = Turn(key, grant.priority, asked.since)
                    ready = await self._desk.gpu_line.free(self._desk, fitting, request, turn)
                    return await queueing.place(self._desk, ready, grant.priority, asked)
            except ApplicationError:
                # Handed back: the next delivery has to know what was waited for.
                activity.heartbeat(self._waiting())
                raise
            finally:
                self._spent.pop(key, None)
                self._hostless.discard(key)

    async def _settle(self, request: ExecutionRequest, key: str) -> float:
        """Wait for the inputs that others make; return how long that took in all, in seconds."""
        earlier: list[Any] = list(activity.info().heartbeat_details)
        told = earlier[0] if earlier and is_table(earlier[0]) else {}
        begun = time.time() - float(told.get(_SPENT, 0.0))
        await self._dependencies.settled(request, key)
        self._spent[key] = round(time.time() - begun, 3)
        return self._spent[key]

    async def _placed(self, record: RequestRecord, asked: AcquireInput) -> bool:
        """Say whether the experiment had a place before: then it is not one more."""
        if asked.reset or asked.number > 1 or asked.waited_s:
            return True
        run_id = activity.info().workflow_run_id
        return any(known.run_id == run_id for known in await record.epochs())

    async def _finished(
        self, record: RequestRecord, admission: Admission, asked: AcquireInput
    ) -> Grant | None:
        """Return the recorded result of the same request, unless this run repeats it."""
        last = await record.last_outcome()
        if last is None or asked.reset:
            return None
        if await record.digest() != admission.digest:
            return None  # `_open` refuses it, with the reason
        _, result = last
        if asked.retry_of and result.get("state") != State.SUCCEEDED:
            return None
        return replace(_grant(admission), recorded=value_to_type(ExperimentResult, result))

    async def _open(self, record: RequestRecord, admission: Admission) -> None:
        try:
            await record.open(admission.digest, admission.request.to_body())
        except StoreConflict as exc:
            problem = Problem("E_CONFLICT", "/id", str(exc), actual=record.request_id)
            raise RequestRejected([problem]) from exc

    def _capsule(self, record: RequestRecord, run_id: str, epochs: Sequence[Epoch]) -> str:
        """Return where this run's capsule will lie: under the run's first epoch."""
        first = min(known.epoch for known in epochs if known.run_id == run_id)
        return f"{self._desk.store.root}/capsules/{record.tenant}/{record.request_id}/{first}"

    async def _waits_for(self, held: Grant) -> str:
        """Say why a grant of an older worker was not taken."""
        away = await is_away(held.backend, held.patience_s)
        return Reason.BACKEND_DOWN if away else Reason.WAITING_FOR_CAPACITY


def _grant(admission: Admission) -> Grant:
    request = admission.request
    rule = request.retry
    return Grant(
        tenant=request.tenant,
        request_id=request.id,
        digest=admission.digest,
        epoch=0,
        backend="",
        kind=request.kind,
        capsule="",
        retry=RetryRule(
            max_attempts=rule.max_attempts,
            initial_interval_s=rule.initial_interval_s,
            backoff=rule.backoff,
            max_interval_s=rule.max_interval_s,
            on=None if rule.on is None else list(rule.on),
        ),
        grace_s=request.limits.grace_s,
        priority=request.priority,
        tags=list(request.tags),
        name=request.name or "",
        notify=rules(request),
        lost_after_s=rule.lost_after,
        rollback=[
            CompensationRule(step.name, step.max_attempts, step.on_failure == "hold")
            for step in request.rollback
        ],
        declared_outputs=len(request.outputs),
    )
