"""Sealing a run: where its files lie, or without them once somebody has said so.

The host may die between the payload's end and the seal. What it has committed by then another
worker finishes, and so it names the outputs that have a target, where it sees what the host has
laid there. Otherwise the outputs and logs lie there and nowhere else, so the host is waited for,
and after the request's ``retry.lost_after`` a person is asked whether the run ends without it. A
success whose outputs are gone is none: it ends as LOST.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from temporalio import workflow
from temporalio.exceptions import ActivityError

from temporal_fabric.clock import stamp
from temporal_fabric.messages import SealInput
from temporal_fabric.questions import Answer, Choice, said
from temporal_fabric.states import Reason, State
from temporal_fabric.workflows import calls
from temporal_fabric.workflows.rollback import rolled_back
from temporal_fabric.workflows.silence import Settled, Silence

if TYPE_CHECKING:
    from temporal_fabric.messages import Grant, Sealed
    from temporal_fabric.outcomes import ExperimentResult
    from temporal_fabric.questions import Resolution
    from temporal_fabric.workflows.placement import Placement
    from temporal_fabric.workflows.standing import Standing
    from temporal_fabric.workflows.wishes import Wishes

_DONE = Choice(
    Answer.DONE, "its end is known and it has left no output: it counts, sealed without its logs"
)
_LOST = Choice(Answer.ABORT, "its outputs are given up: it ends as LOST, and may be run again")
_UNNAMED = Choice(
    Answer.DONE, "it counts as it is: what lacks there can be copied out of the capsule"
)


async def sealed(
    result: ExperimentResult,
    body: Any,
    standing: Standing,
    wishes: Wishes,
    placement: Placement,
) -> ExperimentResult:
    """Return the result of a run as its capsule has it.

    Args:
        result: How the run ends, unless the seal finds out otherwise.
        body: The request body, for a run that was cancelled before any grant.
        standing: The facts of the run.
        wishes: Where an answer arrives; nothing else of it ends this.
        placement: Whose pool is asked about a silent host.
    """
    grant = standing.grant
    if grant is None:
        return await _never_placed(result, body, standing)
    if grant.lost_after_s is None or not standing.files_at:
        return _as_sealed(result, await calls.seal(standing.files_at, SealInput(result)))
    return await _Sealing(result, grant, standing, wishes, placement).run()


async def _never_placed(
    result: ExperimentResult, body: Any, standing: Standing
) -> ExperimentResult:
    try:
        done = await calls.seal("", SealInput(result, body))
    except ActivityError as exc:
        # Cancelled before anything was admitted, and the body is not even a request:
        # there is no tenant and no id to keep a capsule under.
        workflow.logger.info("no capsule for a refused request: %s", exc.cause)
        return result
    standing.notices.know(done.notify)
    return _as_sealed(result, done)


def _as_sealed(result: ExperimentResult, done: Sealed) -> ExperimentResult:
    if done.integrity:
        return replace(
            result,
            state=State.FAILED,
            reason=done.reason or Reason.INTEGRITY,
            message=done.integrity,
            capsule=done.capsule,
        )
    return replace(result, capsule=done.capsule)


class _Sealing:
    """The seal of one run whose files lie on a host."""

    def __init__(
        self,
        result: ExperimentResult,
        grant: Grant,
        standing: Standing,
        wishes: Wishes,
        placement: Placement,
    ) -> None:
        self._result = result
        self._grant = grant
        self._standing = standing
        self._wishes = wishes
        self._placement = placement
        self._host = standing.files_at
        self._from = (standing.state, standing.reason)
        self._unnamed = ""
        self._silence = Silence(
            grant,
            placement.pool,
            standing,
            wishes,
            epoch=standing.files_epoch,
            backend=standing.files_at,
        )
        self._silence.of_what_lies_there(*self._question())

    async def run(self) -> ExperimentResult:
        try:
            while True:
                asked = SealInput(self._told())
                done = await self._silence.offered(partial(calls.seal, self._host, asked))
                done = done or await self._finished_by_another(asked)
                if done is not None:
                    self._standing.unasked()
                    return _as_sealed(asked.result, *done)
        except Settled as settled:
            return await self._without(settled.resolution)

    async def _finished_by_another(self, asked: SealInput) -> tuple[Sealed] | None:
        """Let any worker finish what the silent host has committed, if it has."""
        handle = calls.seal("", replace(asked, silent=True))
        try:
            await self._silence.until(handle.done)
        finally:
            if not handle.done():
                handle.cancel()
        found = handle.result()
        if found.capsule:
            return (found,)
        if found.unnamed != self._unnamed:
            self._unnamed = found.unnamed
            self._silence.of_what_lies_there(*self._question())
            self._standing.unasked()  # what is open was put before this was known
        return None

    async def _without(self, word: Resolution | None) -> ExperimentResult:
        """Seal the run without its host, unless that has sealed it after all."""
        standing, (state, reason) = self._standing, self._from
        standing.give_up_files(standing.files_epoch)
        standing.move(state, reason)
        result, instead = self._told(), self._ends(word)
        if result.state == State.SUCCEEDED and instead.state != State.SUCCEEDED:
            instead = await rolled_back(instead, standing, self._wishes, self._placement)
        done = await calls.seal("", SealInput(result, silent=True, instead=instead))
        if done.unnamed and word is not None:
            told = f"nobody has seen whether these are stored: {done.unnamed}"
            result = replace(result, message=f"{told}; {said(word)}")
        return _as_sealed(instead if done.instead else result, done)

    def _told(self) -> ExperimentResult:
        """Return how the run ends where its files are there, with what has happened since."""
        timeline = [*self._standing.timeline, self._result.timeline[-1]]
        return replace(self._result, timeline=timeline, resolutions=self._standing.resolutions)

    def _ends(self, word: Resolution | None) -> ExperimentResult:
        """Return how the run ends where they are given up."""
        result = self._told()
        if word is None:
            return result  # nothing was ever started there, so nothing is given up
        without = f"sealed without the files on {self._host}; {said(word)}"
        message = "; ".join(filter(None, [result.message, without]))
        at = stamp(workflow.now())
        if result.state == State.SUCCEEDED and word.answer != Answer.DONE:
            result = replace(result, state=State.FAILED, reason=Reason.LOST)
        last = replace(result.timeline[-1], state=result.state, reason=result.reason, at=at)
        return replace(
            result,
            message=message,
            ended_at=at,
            outputs=[],
            timeline=[*result.timeline[:-1], last],
        )

    def _question(self) -> tuple[str, list[Choice]]:
        """Return what a person is told and offered."""
        result = self._result
        if self._unnamed:
            sealed = "Its payload succeeded, and its capsule is sealed with every output."
            names = f"That host alone can see whether these are stored: {self._unnamed}."
            return (f"{sealed} {names}", [_UNNAMED])
        has_outputs = self._grant.declared_outputs or result.outputs
        if result.state == State.SUCCEEDED:
            known, lies = "succeeded", "outputs and logs" if has_outputs else "logs"
            choices = [_LOST] if has_outputs else [_DONE, _LOST]
        else:
            known, lies = f"ended ({result.reason or result.state})", "logs and checkpoints"
            ends = f"it ends as {result.state}{f' ({result.reason})' if result.reason else ''}"
            choices = [Choice(Answer.ABORT, f"{ends}, sealed without what lies there")]
        epoch = self._standing.files_epoch
        return (
            f"Its payload {known}, and the {lies} of epoch {epoch} lie there and nowhere else.",
            choices,
        )
