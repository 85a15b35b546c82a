"""Undoing what a payload has done, after it failed or was cancelled.

Each try of each compensation is an attempt like any other: under an epoch of its own, claimed,
adopted by whoever comes next, and revoked or asked about where its backend is silent. So it
happens once, whatever dies meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from temporalio import workflow
from temporalio.exceptions import ActivityError

from temporal_fabric.clock import stamp
from temporal_fabric.outcomes import AttemptResult, Compensated
from temporal_fabric.questions import Answer, Choice
from temporal_fabric.states import FREE_RETRIES, Reason, State
from temporal_fabric.workflows.decisions import back_off_s, refusal
from temporal_fabric.workflows.holding import given_up, put
from temporal_fabric.workflows.supervision import Supervision
from temporal_fabric.workflows.wishes import GivenUp

if TYPE_CHECKING:
    from temporal_fabric.messages import CompensationRule, Grant
    from temporal_fabric.outcomes import ExperimentResult
    from temporal_fabric.workflows.placement import Placement
    from temporal_fabric.workflows.standing import Standing
    from temporal_fabric.workflows.wishes import Wishes

_OF_A_COMPENSATION = (
    Choice(Answer.DONE, "it is undone, by hand: the next one follows"),
    Choice(Answer.NOT_DONE, "it is not: it is tried again"),
    Choice(Answer.ABORT, "leave it: it is reported as not rolled back, and the next one follows"),
)


async def rolled_back(
    result: ExperimentResult,
    standing: Standing,
    wishes: Wishes,
    placement: Placement,
    *,
    unknown: bool = False,
) -> ExperimentResult:
    """Run the compensations of a run that did not succeed, the last one first.

    Nothing interrupts this. One that fails does not keep the others from being run. Where it is
    unknown whether something of the payload runs, none is run.

    Returns:
        The result, with what was done. A cancelled run of which something could not be undone
        is FAILED (ROLLBACK): CANCELED would say that all is as before.
    """
    grant = standing.grant
    if grant is None or not grant.rollback:
        return result
    wishes.shielded = True
    standing.move(State.COLLECTING, result.reason)
    because = result.reason if result.state == State.FAILED else State.CANCELED
    for rule in reversed(grant.rollback):
        undoing = _Undoing(rule, grant, because, standing, wishes, placement)
        done = Compensated(rule.name, ok=False) if unknown else await undoing.run()
        standing.compensations.append(done)
        standing.show()
    return _told(result, standing)


def _told(result: ExperimentResult, standing: Standing) -> ExperimentResult:
    failed = [done.name for done in standing.compensations if not done.ok]
    state, reason, message = result.state, result.reason, result.message
    if failed:
        message = "; ".join(filter(None, [message, f"not rolled back: {', '.join(failed)}"]))
    if failed and state == State.CANCELED:
        state, reason = State.FAILED, Reason.ROLLBACK
    at = stamp(workflow.now())
    last = replace(result.timeline[-1], state=state, reason=reason, at=at)
    return replace(
        result,
        state=state,
        reason=reason,
        message=message,
        ended_at=at,
        timeline=[*standing.timeline, last],
        compensations=standing.compensations,
    )


@dataclass(slots=True)
class _Undoing:
    """One compensation, tried until it is done or has failed for good."""

    rule: CompensationRule
    grant: Grant
    """The placement of the payload's last attempt."""

    because: str
    standing: Standing
    wishes: Wishes
    placement: Placement
    attempts: list[AttemptResult] = field(default_factory=list[AttemptResult])

    async def run(self) -> Compensated:
        """Return what became of it."""
        counted = 0
        while True:
            ended = await self._attempt()
            if ended is None:
                continue
            self.attempts.append(ended)
            counted += not ended.answer and ended.reason not in FREE_RETRIES
            failed = counted >= self.rule.max_attempts or ended.answer == Answer.ABORT
            if failed and not ended.ok and self.rule.hold and not ended.answer:
                ended, counted = await self._asked(ended), 0
                failed = ended.answer == Answer.ABORT
            if ended.ok or failed:
                return Compensated(self.rule.name, ended.ok, self.attempts)
            pause = back_off_s(self.grant.retry, len(self.attempts))
            why = f"try {self.rule.name} again after {ended.reason}"
            await workflow.sleep(timedelta(seconds=pause), summary=why)

    async def _attempt(self) -> AttemptResult | None:
        """Return how one try ended; None where it never began."""
        name, near = self.rule.name, self.standing.files_at or self.grant.backend
        try:
            grant = await self.placement.compensating(name, near)
        except ActivityError as exc:
            return _never(Reason.REFUSED, refusal(exc).message)
        if grant.denied:
            return _never(grant.denied_reason or Reason.NO_BACKEND, grant.denied)
        undoing = (name, self.because)
        trial = Supervision(grant, self.standing, self.wishes, self.placement, undoing)
        before = self.standing.state
        try:
            ended = await trial.run()
        except GivenUp as exc:
            ended = given_up(exc, stamp(workflow.now()))
        self.standing.move(before)
        return ended

    async def _asked(self, ended: AttemptResult) -> AttemptResult:
        """Return a failed try as a person has answered for it."""
        before = self.standing.state
        text = f"The compensation {self.rule.name} has failed ({ended.reason}). {ended.message}"
        ended = await put(text, _OF_A_COMPENSATION, ended, self.standing, self.wishes)
        self.standing.move(before)
        self.attempts[-1] = replace(ended, ok=ended.answer == Answer.DONE)
        return self.attempts[-1]


def _never(reason: str, message: str) -> AttemptResult:
    """Return the end of a try that got no place."""
    at = stamp(workflow.now())
    return AttemptResult(0, "", ok=False, reason=reason, message=message, ended_at=at)
