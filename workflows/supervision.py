"""One epoch on its backend, from the grant to the end of the attempt or the proof of absence."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, ChildWorkflowError

from temporal_fabric import names
from temporal_fabric.clock import stamp
from temporal_fabric.messages import AcquireInput
from temporal_fabric.outcomes import AttemptResult
from temporal_fabric.questions import Answer
from temporal_fabric.states import Reason, State
from temporal_fabric.workflows import calls
from temporal_fabric.workflows.decisions import cause_of, host_did_not_answer
from temporal_fabric.workflows.holding import of_silent
from temporal_fabric.workflows.pausing import watched
from temporal_fabric.workflows.silence import Settled, Silence
from temporal_fabric.workflows.wishes import CancelRequested, DeadlinePassed

if TYPE_CHECKING:
    from temporal_fabric.messages import Grant
    from temporal_fabric.questions import Resolution
    from temporal_fabric.workflows.pausing import Handle
    from temporal_fabric.workflows.placement import Placement
    from temporal_fabric.workflows.standing import Standing
    from temporal_fabric.workflows.wishes import Wishes


class Supervision:
    """Carries one grant through its attempt.

    After every end of `attempt` that is not a normal return, `ensure_absent` proves that
    nothing of the epoch runs before anything else happens; or the epoch is settled, see
    `Silence`.
    """

    def __init__(
        self,
        grant: Grant,
        standing: Standing,
        wishes: Wishes,
        placement: Placement,
        undoing: tuple[str, str] = ("", ""),
    ) -> None:
        self._grant = grant
        self._standing = standing
        self._wishes = wishes
        self._placement = placement
        self._undoing = undoing
        self._silence = Silence(grant, placement.pool, standing, wishes)

    async def run(self) -> AttemptResult | None:
        """Return how the attempt ended; None where it never began and needs another grant.

        Raises:
            CancelRequested: a person cancelled, and nothing of the epoch runs.
            DeadlinePassed: it is too late, and nothing of the epoch runs.
            GivenUp: a person says that nobody can know whether something runs.
        """
        grant, standing = self._grant, self._standing
        for prior in grant.prior:
            earlier = Silence(
                grant,
                self._placement.pool,
                standing,
                self._wishes,
                epoch=prior.epoch,
                backend=prior.backend,
            )
            await earlier.proven_absent()
        standing.move(State.PREPARING, grant.reason)
        ran_before, standing.may_have_run = standing.may_have_run, True
        try:
            ended = None
            while ended is None:
                ended = await self._offered()
        except Settled as settled:
            if settled.resolution is None:
                standing.may_have_run = ran_before
            return self._settled(settled.resolution)
        except (ActivityError, ChildWorkflowError) as exc:
            await self._silence.proven_absent()
            cause = cause_of(exc)
            if isinstance(cause, ApplicationError) and cause.type == names.STALE_GRANT:
                return None
            return _broken(grant, cause)
        except CancelRequested:
            standing.move(State.CANCELLING)
            await self._silence.proven_absent()
            raise
        except DeadlinePassed:
            standing.unasked()
            standing.waits_for(Reason.TIMEOUT)
            await self._silence.proven_absent()
            raise
        return ended

    async def _offered(self) -> AttemptResult | None:
        """Wait for the attempt; None means its host did not take it, and it is offered again."""
        grant, number = self._grant, self._placement.number
        failures = [ended.reason for ended in self._standing.attempts]
        silence, flows = self._silence, grant.kind == names.KIND_FLOW
        offer = calls.flow if flows else partial(_attempt, undoing=self._undoing)
        try:
            handle = await offer(
                grant,
                number,
                failures,
                self._standing.resolutions,
                patience=silence.patience,
                was_silent=silence.is_known,
            )
            try:
                return await watched(handle, grant, self._standing, self._wishes, silence.until)
            except (CancelRequested, DeadlinePassed, Settled) as exc:
                await self._called_off(handle, exc)
                raise
        except (ActivityError, ChildWorkflowError) as exc:
            if not host_did_not_answer(exc):
                raise
        if grant.lost_after_s is not None:
            await silence.heard_nothing()
            return None
        held = AcquireInput(None, number=self._placement.number, held=grant)
        answer = await self._placement.ask(held)
        self._standing.waits_for(answer.reason)
        return None

    async def _called_off(self, handle: Handle, why: Exception) -> None:
        """Let go of an attempt; a flow whose host answers ends by itself and keeps a checkpoint."""
        if not isinstance(handle, workflow.ChildWorkflowHandle) or isinstance(why, Settled):
            handle.cancel()
            return
        canceled = isinstance(why, CancelRequested)
        if canceled:
            self._standing.move(State.CANCELLING)
        with suppress(ChildWorkflowError, ApplicationError):
            await handle.signal(names.SIGNAL_FLOW_STOP, "" if canceled else Reason.TIMEOUT)
            self._standing.attempts.append(await handle)

    def _settled(self, word: Resolution | None) -> AttemptResult | None:
        """Return what a person says of the attempt; None where its start was revoked."""
        grant, standing = self._grant, self._standing
        standing.give_up_files(grant.epoch)
        self._placement.avoid(grant.backend)
        if word is None:
            standing.move(State.QUEUED, Reason.BACKEND_DOWN)
            standing.waits_for("")  # from here on for a place like any other
            return None
        reason = "" if word.answer == Answer.DONE else Reason.LOST
        if word.answer != Answer.NOT_DONE:
            standing.move(State.COLLECTING, reason)
        return AttemptResult(
            epoch=grant.epoch,
            backend=grant.backend,
            ok=not reason,
            reason=reason,
            message=of_silent(grant.backend, word),
            native_id=standing.native_id,
            ended_at=word.at,
            answer=word.answer,
        )


async def _attempt(*args: Any, **options: Any) -> workflow.ActivityHandle[AttemptResult]:
    return calls.attempt(*args, **options)


def _broken(grant: Grant, cause: BaseException) -> AttemptResult:
    return AttemptResult(
        epoch=grant.epoch,
        backend=grant.backend,
        ok=False,
        reason=Reason.INTERNAL,
        message=str(cause),
        ended_at=stamp(workflow.now()),
    )
