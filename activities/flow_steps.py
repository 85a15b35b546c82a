"""The activities of a certified flow: begin it, answer its controller's questions, end it.

They run on the queue of the backend that was placed, where the run's folder lies, and hand the
work to the host's warm process of JAX. Each may be repeated: see `temporal_fabric.flows.stepping`.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from temporalio import activity
from temporalio.exceptions import ApplicationError

from temporal_fabric import names
from temporal_fabric.activities import abandoned
from temporal_fabric.activities.heartbeat import beating
from temporal_fabric.adapters.contract import AttemptKey
from temporal_fabric.artifacts.delivery import with_targets
from temporal_fabric.artifacts.staging import recorded_inputs, stage_in
from temporal_fabric.clock import now
from temporal_fabric.errors import PermanentBackendError, RequestRejected, StaleEpoch
from temporal_fabric.failpoints import FailPoint, reach
from temporal_fabric.flow_messages import (
    FlowEnd,
    FlowOpened,
    FlowRun,
    FlowStanding,
    FlowStep,
    FlowStepped,
    shown,
)
from temporal_fabric.flows.requested import files_of, spec_of
from temporal_fabric.messages import STARTED
from temporal_fabric.outcomes import AttemptResult, CertificateLine, FlowOutcome
from temporal_fabric.recorder.flow_runs import is_redacted
from temporal_fabric.requests.changes import after_failures
from temporal_fabric.requests.models import ExecutionRequest
from temporal_fabric.states import Reason
from temporal_fabric.workplace import OutputRefused, Workplace, declared_outputs

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from temporal_fabric.activities.desk import Desk

_MAY_GO_ON = frozenset({Reason.PREEMPTED, Reason.TIMEOUT})
"""Ends after which another attempt may go on from the last checkpoint."""


class FlowSteps:
    """The activities of flows of one worker."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @activity.defn(name=names.ACTIVITY_FLOW_OPEN)
    async def open(self, asked: FlowRun) -> FlowOpened:
        """Stage in, begin the run or find where it goes on.

        Returns:
            Where it stands; or why it cannot be run, as a value.

        Raises:
            ApplicationError: ``STALE_GRANT``, non-retryable, where the epoch is not the newest.
        """
        run = _Run(self._desk, asked)
        async with run.supervised(lambda: {"state": "PREPARING", "doing": run.doing}):
            try:
                return await run.open()
            except RequestRejected as exc:
                return FlowOpened(reason=Reason.REFUSED, message=str(exc))
            except PermanentBackendError as exc:
                return FlowOpened(reason=exc.reason, message=str(exc))

    @activity.defn(name=names.ACTIVITY_FLOW_STEP)
    async def step(self, asked: FlowStep) -> FlowStepped:
        """Answer one question and do what follows from it; repeating it gives the same bits.

        Raises:
            ApplicationError: ``STALE_GRANT``, non-retryable, where the epoch is not the newest.
            TransientBackendError: the disk is full or gone.
        """
        run = _Run(self._desk, asked.run)
        standing = asked.standing
        async with run.supervised(lambda: shown(standing) | {"native_id": asked.native_id}):
            await run.fence()
            reach(FailPoint.FLOW_ASKED)
            try:
                found = await run.ask("step", asdict(standing))
            except PermanentBackendError as exc:
                # As every question that cannot be answered: the controller ends the run.
                return FlowStepped({"report": "broke", "message": str(exc)})
            await run.copy()
            reach(FailPoint.FLOW_ANSWERED)
            done = FlowStepped(**found, gives_way=run.gives_way())
            await asyncio.to_thread(run.say, _line(standing, done))
            return done

    @activity.defn(name=names.ACTIVITY_FLOW_FINISH)
    async def finish(self, asked: FlowEnd) -> AttemptResult:
        """Record the end, leave the result where outputs lie, and collect them.

        Raises:
            ApplicationError: ``STALE_GRANT``, non-retryable, where the epoch is not the newest.
            TransientBackendError: the disk is full or gone.
        """
        run = _Run(self._desk, asked.run)
        async with run.supervised(lambda: shown(asked.standing) | {"state": "COLLECTING"}):
            await run.fence()
            return await run.finish(asked)


class _Run:
    """One activity of one attempt."""

    def __init__(self, desk: Desk, run: FlowRun) -> None:
        self._desk, self._run = desk, run
        attempt = run.attempt
        self._record = desk.record(attempt.tenant, attempt.request_id)
        self._key = AttemptKey(attempt.tenant, attempt.request_id, attempt.epoch)
        self._place = Workplace.of(
            desk.settings.runs, attempt.tenant, attempt.request_id, attempt.epoch
        )
        self.doing = ""

    @asynccontextmanager
    async def supervised(self, details: Callable[[], dict[str, Any]]) -> AsyncGenerator[None]:
        """Hold the place and heartbeat; where the experiment is over, see to its end."""
        attempt, desk = self._run.attempt, self._desk
        desk.capacity(attempt.backend).claim(self._run.workflow_id)
        async with beating(details):
            try:
                yield
            except StaleEpoch as exc:
                raise ApplicationError(
                    str(exc), type=names.STALE_GRANT, non_retryable=True
                ) from exc
            except asyncio.CancelledError:
                why = activity.cancellation_details()
                if (
                    why is not None
                    and why.not_found
                    and await abandoned.close(desk, activity.client(), self._key)
                ):
                    desk.capacity(attempt.backend).release(self._run.workflow_id)
                raise

    async def fence(self) -> None:
        """Refuse an epoch that is not the newest of the experiment's run.

        Raises:
            StaleEpoch: it is not.
        """
        await self._record.require_newest(self._run.attempt.epoch, self._run.run_id)

    def gives_way(self) -> bool:
        """Say whether a more urgent experiment waits for the place."""
        places = self._desk.capacity(self._run.attempt.backend)
        return places.gives_way(self._run.workflow_id, self._run.priority)

    async def claim(self) -> None:
        """Claim the start before the first effect.

        Raises:
            StaleEpoch: it was revoked, because the backend was silent, or is not the newest.
        """
        _, how = await asyncio.gather(
            self.fence(), self._record.claim_start(self._run.attempt.epoch, STARTED)
        )
        if how != STARTED:
            raise StaleEpoch(f"the start of {self._key} was revoked: its backend was silent")

    async def ask(self, op: str, args: dict[str, Any]) -> dict[str, Any]:
        """Have the warm process do something with the run's folder."""
        more = {"epoch": self._run.attempt.epoch}
        return await self._desk.flows.ask(op, self._place.checkpoints, args | more)

    async def copy(self) -> None:
        """Copy the run into the store beside it, where that is due."""
        await self._desk.copies.after_step(self._key, self._place, self.fence)

    async def open(self) -> FlowOpened:
        """Bring in what the flow needs, and begin it."""
        attempt, place = self._run.attempt, self._place
        await self.claim()
        body = await self._record.body(attempt.digest)
        request = after_failures(ExecutionRequest.from_mapping(body), attempt.failures)
        await asyncio.to_thread(place.create)
        await stage_in(request, place, self._desk.settings, self._desk.store, self._say)
        payload = body["payload"][names.KIND_FLOW]
        spec = spec_of(payload)
        self._say("looking for a copy of its checkpoint")
        if (number := await self._desk.copies.bring(self._key, place)) is not None:
            await asyncio.to_thread(self.say, f"goes on from the copy of step {number}")
        self._say("reading the specification; loading JAX where it is not yet")
        found = await self.ask(
            "open",
            {
                "spec": spec,
                "data": files_of(spec, (place.folder / "task", place.input)),
                "run_id": f"{attempt.tenant}/{attempt.request_id}",
                "wall_s": request.limits.wall_s,
                "redact": is_redacted(body),
            },
        )
        await self._desk.observer.started(request.kind, attempt.backend)
        native = self._desk.flows.native_id(place.checkpoints)
        return FlowOpened(FlowStanding(**found), native, now())

    async def finish(self, asked: FlowEnd) -> AttemptResult:
        """Leave the result, and collect it."""
        attempt, place = self._run.attempt, self._place
        collecting = now()
        more = {"outcome": asked.outcome, "events": asked.events, "output": str(place.output)}
        if asked.reason in _MAY_GO_ON:
            await self._desk.copies.at_end(self._key, place, self.fence)
        found = await self.ask("finish", asdict(asked.standing) | more)
        lines = [CertificateLine(**one) for one in found.pop("certificates")]
        outcome = FlowOutcome(**found, certificates=lines)
        await asyncio.to_thread(self.say, _last_line(asked, outcome))
        ended = AttemptResult(
            epoch=attempt.epoch,
            backend=attempt.backend,
            ok=asked.outcome == "SUCCEEDED",
            reason=asked.reason,
            message=asked.message,
            native_id=asked.opened.native_id,
            started_at=asked.opened.at,
            ended_at=now(),
            inputs=await asyncio.to_thread(recorded_inputs, place),
            changes=attempt.changes,
            collecting_at=collecting,
            flow=outcome,
        )
        ended = await self._collected(ended)
        await self._record.commit(attempt.epoch)
        self._desk.capacity(attempt.backend).release(self._run.workflow_id)
        return ended

    async def _collected(self, ended: AttemptResult) -> AttemptResult:
        """Hash what was left as output; a declared one that is missing fails what succeeded."""
        body = await self._record.body(self._run.attempt.digest)
        request = ExecutionRequest.from_mapping(body)
        declared = declared_outputs(request) if ended.ok else ()
        try:
            found = await asyncio.to_thread(
                self._place.collect, declared, request.limits.output_bytes
            )
        except (OutputRefused, OSError) as exc:
            if not ended.ok:
                return ended
            reason = getattr(exc, "reason", Reason.OUTPUT_MISSING)
            return replace(ended, ok=False, reason=reason, message=str(exc))
        return replace(ended, outputs=with_targets(request, found) if ended.ok else found)

    def say(self, line: str) -> None:
        """Write a line of the attempt's log."""
        with self._place.stdout.open("a") as log:
            log.write(f"{line}\n")

    def _say(self, doing: str) -> None:
        self.doing = doing


def _line(standing: FlowStanding, done: FlowStepped) -> str:
    """Return what a step came to, in one line."""
    asked, report = standing.state["asked"]["ask"], done.report
    at = report.get("iteration", standing.state["iteration"])
    gates = [report[name] for name in ("gate", "exit", "during") if name in report]
    verdict = gates[0]["verdict"] if gates else report["report"]
    energy = "" if done.energy is None else f"  E {done.energy:.10g}"
    return f"step {standing.number:4d}  {asked:<8}{verdict:<20}iteration {at}{energy}"


def _last_line(asked: FlowEnd, outcome: FlowOutcome) -> str:
    said = " ".join(filter(None, (asked.outcome, asked.reason, asked.message)))
    state = f", state sha256:{outcome.sha256[:16]}" if outcome.sha256 else ""
    return f"{outcome.verdict} at iteration {outcome.iteration}{state}: {said}"
