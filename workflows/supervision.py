"""One epoch on its backend, from the grant to the end of the attempt or the proof of absence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

from temporal_fabric import names
from temporal_fabric.clock import stamp
from temporal_fabric.messages import AcquireInput, AttemptResult
from temporal_fabric.states import Reason, State
from temporal_fabric.workflows import calls
from temporal_fabric.workflows.decisions import host_did_not_answer
from temporal_fabric.workflows.pausing import watched
from temporal_fabric.workflows.wishes import CancelRequested, DeadlinePassed

if TYPE_CHECKING:
    from temporal_fabric.messages import Grant
    from temporal_fabric.workflows.placement import Placement
    from temporal_fabric.workflows.standing import Standing
    from temporal_fabric.workflows.wishes import Wishes


class Supervision:
    """Carries one grant through its attempt.

    After every end of `attempt` that is not a normal return, `ensure_absent` proves that
    nothing of the epoch runs before anything else happens.
    """

    def __init__(
        self, grant: Grant, standing: Standing, wishes: Wishes, placement: Placement
    ) -> None:
        self._grant = grant
        self._standing = standing
        self._wishes = wishes
        self._placement = placement

    async def run(self) -> AttemptResult | None:
        """Return how the attempt ended; None where the grant was stale and another is needed.

        Raises:
            CancelRequested: a person cancelled, and nothing of the epoch runs.
            DeadlinePassed: it is too late, and nothing of the epoch runs.
        """
        grant = self._grant
        for prior in grant.prior:
            await calls.ensure_absent(grant, prior.epoch, prior.backend)
        self._standing.move(State.PREPARING, grant.reason)
        try:
            ended = None
            while ended is None:
                ended = await self._offered()
        except ActivityError as exc:
            await self._prove_absent()
            if isinstance(exc.cause, ApplicationError) and exc.cause.type == names.STALE_GRANT:
                return None
            return _broken(grant, exc)
        except CancelRequested:
            self._standing.move(State.CANCELLING)
            await self._prove_absent()
            raise
        except DeadlinePassed:
            self._standing.waits_for(Reason.TIMEOUT)
            await self._prove_absent()
            raise
        return ended

    async def _offered(self) -> AttemptResult | None:
        """Wait for the attempt; None means its host did not take it, and it is offered again."""
        failures = [ended.reason for ended in self._standing.attempts]
        handle = calls.attempt(self._grant, self._placement.number, failures)
        try:
            return await watched(handle, self._grant, self._standing, self._wishes)
        except (CancelRequested, DeadlinePassed):
            handle.cancel()
            raise
        except ActivityError as exc:
            if not host_did_not_answer(exc):
                raise
        held = AcquireInput(None, number=self._placement.number, held=self._grant)
        answer = await self._placement.ask(held)
        self._standing.waits_for(answer.reason)
        return None

    async def _prove_absent(self) -> None:
        await calls.ensure_absent(self._grant, self._grant.epoch, self._grant.backend)


def _broken(grant: Grant, error: ActivityError) -> AttemptResult:
    return AttemptResult(
        epoch=grant.epoch,
        backend=grant.backend,
        ok=False,
        reason=Reason.INTERNAL,
        message=str(error.cause or error),
        ended_at=stamp(workflow.now()),
    )
