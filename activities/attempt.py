"""Run one attempt, or adopt the one that already runs.

The activity is a small supervisor: it heartbeats, watches and collects. The payload belongs
to the backend and outlives it, so a worker's death only costs a heartbeat timeout, after
which another worker enters here with the same epoch and finds the same job.
"""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from temporal_fabric import names
from temporal_fabric.activities import abandoned
from temporal_fabric.activities.heartbeat import beating
from temporal_fabric.activities.recording import Recording, recording
from temporal_fabric.adapters.contract import (
    AttemptKey,
    AttemptSpec,
    JobHandle,
    JobStatus,
    Phase,
)
from temporal_fabric.adapters.local_secrets import scrub
from temporal_fabric.artifacts.delivery import with_targets
from temporal_fabric.artifacts.fetching import Fetching
from temporal_fabric.artifacts.staging import recorded_inputs, stage_in
from temporal_fabric.clock import from_unix, now
from temporal_fabric.environments import prepare
from temporal_fabric.errors import PermanentBackendError, StaleEpoch
from temporal_fabric.failpoints import FailPoint, reach
from temporal_fabric.gpus.record import recorded_gpus
from temporal_fabric.messages import STARTED, AttemptInput, AttemptUpdate
from temporal_fabric.observability.traceparent import payload_environment
from temporal_fabric.outcomes import AttemptResult
from temporal_fabric.requests.changes import after_failures
from temporal_fabric.requests.compensating import compensating
from temporal_fabric.requests.models import ExecutionRequest
from temporal_fabric.states import Reason, State
from temporal_fabric.workplace import OutputRefused, Workplace, declared_outputs

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from temporal_fabric.activities.desk import Desk
    from temporal_fabric.adapters.contract import Adapter

_LOOK_S = 20.0
"""One wait at the backend; an end is reported at once, this only bounds a silent wait."""

_STAGED_LONG_S = 10.0
"""The heartbeat timeout: who was silent for longer may have been settled by others."""

_QUEUED_LOOK_S = 2.0
"""One wait for a payload that its backend has not begun yet, so that its beginning is told."""

_BRIEF_S = 0.3
"""A state that passes sooner is told with the attempt's result: a signal costs more than it."""


class Attempt:
    """The ``attempt`` activity of one worker."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @activity.defn(name=names.ACTIVITY_ATTEMPT)
    async def attempt(self, asked: AttemptInput) -> AttemptResult:
        """Stage in, submit or adopt, watch, collect.

        Returns:
            How the payload ended; its failure is a value.

        Raises:
            ApplicationError: ``STALE_GRANT``, non-retryable, where the epoch is not the newest.
        """
        run = _Run(self._desk, asked)
        place, key = self._desk.capacity(asked.backend), activity.info().workflow_id or ""
        place.claim(key)
        async with beating(run.heartbeat):
            try:
                ended = await run.supervise()
            except StaleEpoch as exc:
                # Nobody may be listening: what runs of it, if anything, is ended here.
                await run.end()
                place.release(key)
                raise ApplicationError(
                    str(exc), type=names.STALE_GRANT, non_retryable=True
                ) from exc
            except asyncio.CancelledError:
                if await run.let_go():
                    place.release(key)
                raise
        place.release(key)
        self._desk.gpu_line.took(key)
        return ended


class _Run:
    """One supervision of one attempt."""

    def __init__(self, desk: Desk, asked: AttemptInput) -> None:
        self._asked = asked
        self._desk = desk
        self._adapter: Adapter = desk.backend(asked.backend)
        self._record = desk.record(asked.tenant, asked.request_id)
        self._key = AttemptKey(asked.tenant, asked.request_id, asked.epoch)
        self._place = Workplace.of(desk.settings.runs, asked.tenant, asked.request_id, asked.epoch)
        self._state: str = State.PREPARING
        self._native_id = ""
        self._environments = desk.settings.environments
        self._doing = ""
        self._since = time.monotonic()
        self._grace_s = 10.0
        self._started_at: float | None = None
        self._collecting_at = ""
        self._recording: Recording | None = None

    def _say(self, doing: str) -> None:
        self._doing = doing

    def heartbeat(self) -> dict[str, Any]:
        """Return what the UI shows under pending activities."""
        doing = {"doing": self._doing} if self._state == State.PREPARING and self._doing else {}
        if self._recording is not None:
            doing |= self._recording.details(self._started_at)
        return doing | {
            "state": self._state,
            "native_id": self._native_id,
            "supervised_s": round(time.monotonic() - self._since, 1),
            "stdout_bytes": _size(self._place.stdout),
        }

    async def supervise(self) -> AttemptResult:
        """Carry the attempt to its end."""
        # Reads, and the claim: whatever they find, nothing is done under a stale grant.
        _, body, status = await asyncio.gather(
            self._claim(),
            self._record.body(self._asked.digest),
            self._adapter.find(self._key),
        )
        reach(FailPoint.ATTEMPT_CLAIMED)
        if self._asked.was_silent:
            await self._tell(State.PREPARING, now())
        request = after_failures(ExecutionRequest.from_mapping(body), self._asked.failures)
        if self._asked.compensation:
            request = compensating(request, self._asked.compensation)
        self._grace_s = request.limits.grace_s
        if status.phase is Phase.ABSENT:
            try:
                await asyncio.to_thread(self._place.create)
                await stage_in(
                    request, self._place, self._desk.settings, self._desk.store, self._say
                )
                fetch = Fetching(self._desk.settings.artifacts, self._say)
                around = await prepare(request, self._environments, self._place, fetch, self._say)
                reach(FailPoint.ATTEMPT_STAGED)
                if time.monotonic() - self._since > _STAGED_LONG_S:
                    await self._fence()  # meanwhile it may have been given up
                job = await self._adapter.submit(self._spec(request, around))
                self._desk.gpu_line.took(activity.info().workflow_id or "")
                reach(FailPoint.ATTEMPT_SUBMITTED)
                await self._desk.observer.started(request.kind, self._asked.backend)
            except PermanentBackendError as exc:
                return await self._ended(JobStatus(Phase.ENDED), exc.reason, str(exc))
            status = JobStatus(Phase.RUNNING, job.native_id)
        async with recording(self._place, request, self._desk.settings.secrets) as told:
            self._recording = told
            status = await self._watch(status)
        return await self._collect(request, status)

    async def let_go(self) -> bool:
        """Kill where the experiment is over, else leave it running; say whether it is gone."""
        why = activity.cancellation_details()
        if why is not None and why.cancel_requested:
            await self.end()
            return True
        if why is not None and why.not_found:
            return await abandoned.close(self._desk, activity.client(), self._key)
        return False

    async def end(self) -> None:
        """Return with the proof that nothing of the attempt runs."""
        await self._adapter.terminate(self._key, self._grace_s)

    async def _watch(self, status: JobStatus) -> JobStatus:
        handle = JobHandle(self._key, status.native_id)
        # Also of a job that was found ended: what it wrote may still lie with its backend.
        status = await self._adapter.wait(handle, _BRIEF_S)
        await self._see(status)
        while status.phase is Phase.RUNNING:
            limit_s = _QUEUED_LOOK_S if status.started_at is None else _LOOK_S
            status = await self._adapter.wait(handle, limit_s)
            await self._see(status)
        return status

    async def _see(self, status: JobStatus) -> None:
        """Tell what the payload waits for, and once that it has begun."""
        self._native_id = status.native_id or self._native_id
        if status.started_at is None:
            self._say(status.message)
        elif self._started_at is None:
            self._state, self._started_at = State.RUNNING, status.started_at
            if status.phase is Phase.RUNNING:
                await self._tell(State.RUNNING, from_unix(self._started_at))
                reach(FailPoint.ATTEMPT_RUNNING)

    async def _collect(self, request: ExecutionRequest, status: JobStatus) -> AttemptResult:
        reach(FailPoint.ATTEMPT_ENDED)
        await self._fence()
        self._state, self._collecting_at = State.COLLECTING, now()
        async with self._telling_if_long(State.COLLECTING, self._collecting_at):
            if request.secrets:
                await asyncio.to_thread(scrub, self._place, request, self._desk.settings.secrets)
            ended = await self._judged(request, status)
        reach(FailPoint.ATTEMPT_COLLECTED)
        return ended

    async def _judged(self, request: ExecutionRequest, status: JobStatus) -> AttemptResult:
        if status.phase is Phase.LOST or status.reason:
            return await self._ended(status, status.reason or Reason.LOST, status.message)
        end, message = _end_of(status)
        if status.oom_kills:
            # Also where the program carried on without the process: its result lacks a part.
            message = f"a process of the payload was killed for memory; {message}"
            return await self._ended(status, Reason.OOM, message)
        if end:
            return await self._ended(status, end, message)
        try:
            limit = request.limits.output_bytes
            found = await asyncio.to_thread(self._place.collect, declared_outputs(request), limit)
        except (OutputRefused, OSError) as exc:
            reason = getattr(exc, "reason", Reason.OUTPUT_MISSING)
            return await self._ended(status, reason, str(exc))
        ended = await self._ended(status, "", "")
        return replace(ended, ok=True, outputs=with_targets(request, found), stderr_excerpt="")

    async def _ended(self, status: JobStatus, reason: str, message: str) -> AttemptResult:
        place = self._place
        _, (excerpt, inputs, gpus) = await asyncio.gather(
            self._record.commit(self._asked.epoch),
            asyncio.to_thread(
                lambda: (place.excerpt(), recorded_inputs(place), recorded_gpus(place.folder))
            ),
        )
        return AttemptResult(
            epoch=self._asked.epoch,
            backend=self._asked.backend,
            ok=False,
            reason=reason,
            message=message,
            exit_code=status.exit_code,
            signal=status.signal,
            native_id=status.native_id or self._native_id,
            started_at=from_unix(status.started_at) if status.started_at else "",
            ended_at=from_unix(status.ended_at) if status.ended_at else now(),
            stderr_excerpt=excerpt,
            oom_kills=status.oom_kills,
            cpu_s=status.cpu_s,
            max_rss_bytes=status.max_rss_bytes,
            log_dropped_bytes=status.log_dropped_bytes,
            paused_s=round(status.paused_s, 3),
            inputs=inputs,
            gpus=gpus,
            changes=self._asked.changes,
            collecting_at=self._collecting_at,
            question=status.question,
        )

    async def _claim(self) -> None:
        """Claim the start before the first effect, unless it was revoked."""
        reach(FailPoint.ATTEMPT_TAKEN)
        _, how = await asyncio.gather(
            self._fence(), self._record.claim_start(self._asked.epoch, STARTED)
        )
        if how != STARTED:
            raise StaleEpoch(f"the start of {self._key} was revoked: its backend was silent")

    async def _fence(self) -> None:
        run_id = activity.info().workflow_run_id or ""
        await self._record.require_newest(self._asked.epoch, run_id)

    @asynccontextmanager
    async def _telling_if_long(self, state: State, at: str) -> AsyncGenerator[None]:
        over = asyncio.Event()

        async def tell() -> None:
            try:
                await asyncio.wait_for(over.wait(), _BRIEF_S)
            except TimeoutError:
                await self._tell(state, at)

        # Nothing is told any more once the block has ended: a late word would be out of order.
        telling = asyncio.create_task(tell())
        try:
            yield
        finally:
            over.set()
            await telling

    async def _tell(self, state: State, at: str) -> None:
        info = activity.info()
        handle = activity.client().get_workflow_handle(
            info.workflow_id or "", run_id=info.workflow_run_id
        )
        update = AttemptUpdate(state, at, self._native_id, self._asked.epoch)
        try:
            await handle.signal(names.SIGNAL_ATTEMPT, update)
        except RPCError as exc:
            if exc.status != RPCStatusCode.NOT_FOUND:
                raise
            # The run is closed: the next heartbeat says so, with the reason.
            activity.logger.info("the run is closed; nobody is told about %s", state)

    def _spec(self, request: ExecutionRequest, around: dict[str, str]) -> AttemptSpec:
        asked = self._asked
        return AttemptSpec(
            key=self._key,
            request=request,
            folder=self._place.folder,
            checkpoints=self._place.checkpoints,
            number=asked.number,
            say=self._say,
            resolutions=tuple(asked.resolutions),
            env=around
            | payload_environment()
            | ({"FABRIC_DEADLINE": asked.deadline} if asked.deadline else {})
            | _of_compensation(asked)
            | self._place.variables(
                tenant=asked.tenant, request_id=asked.request_id, number=asked.number
            ),
        )


def _end_of(status: JobStatus) -> tuple[str, str]:
    """Return the reason of an end that the payload chose itself, empty for success."""
    if status.signal is not None:
        name = signal.Signals(status.signal).name
        return (Reason.SIGNAL, f"the payload was killed by {name}")
    reason = Reason.EXIT_CODE if status.exit_code else ""
    return (reason, status.message or f"the payload exited with code {status.exit_code}")


def _of_compensation(asked: AttemptInput) -> dict[str, str]:
    if not asked.compensation:
        return {}
    return {"FABRIC_COMPENSATION": asked.compensation, "FABRIC_REASON": asked.because}


def _size(path: Any) -> int:
    try:
        return int(path.stat().st_size)
    except OSError:
        return 0
