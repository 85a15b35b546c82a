"""Where one experiment stands: state, timeline and placement, and what Temporal shows of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from temporalio import workflow

from temporal_fabric import names
from temporal_fabric.clock import stamp
from temporal_fabric.outcomes import AttemptResult, Compensated, ExperimentResult, Moment
from temporal_fabric.questions import Choice, Question, Resolution, said
from temporal_fabric.states import Reason, State, legal
from temporal_fabric.workflows.notices import Notices
from temporal_fabric.workflows.view import details, search_attributes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from temporal_fabric.messages import Grant


class Standing:
    """The facts of one run, and the only place that changes its state."""

    def __init__(self) -> None:
        self.state = State.QUEUED
        self.reason = ""
        self.timeline: list[Moment] = []
        self.attempts: list[AttemptResult] = []
        self.grant: Grant | None = None
        self.admitted: Grant | None = None
        """What `acquire` knew of the request although it gave it no place."""

        self.native_id = ""
        self.capsule = ""
        self.files_at = ""
        """The backend whose host has files of the run; empty where none has any."""

        self.files_epoch = 0
        """Under which epoch they came there."""

        self.heard: datetime | None = None
        """When an attempt last said something."""

        self.question: Question | None = None
        """What a person is asked; the experiment is HELD."""

        self.resolutions: list[Resolution] = []
        self.compensations: list[Compensated] = []
        self.may_have_run = False
        """Whether an attempt may have had effects: one was offered, and not revoked."""

        self.notices = Notices()
        self._files_before = ("", 0)
        self._questions = 0
        self._held_from = self.state
        self._said = ""

    def placed(self, grant: Grant) -> None:
        """Take over a new placement."""
        self.grant, self.native_id, self.capsule = grant, "", grant.capsule
        self._files_before = (self.files_at, self.files_epoch)
        self.files_at, self.files_epoch = grant.backend, grant.epoch
        self._know(grant)

    def give_up_files(self, epoch: int) -> None:
        """Expect no files of an epoch: its host is silent."""
        if self.grant is not None and self.grant.epoch == epoch:
            self.files_at, self.files_epoch = self._files_before

    def hold(
        self, text: str, choices: Sequence[Choice], epoch: int, backend: str, reason: str
    ) -> None:
        """Put a question to a person, and be HELD until it is answered or has no object."""
        self._questions += 1
        self._held_from = self.state
        self.question = Question(self._questions, text, list(choices), epoch, backend)
        self.move(State.HELD, reason, message=text)

    def unasked(self) -> None:
        """Stand as before the question: it has no object any more."""
        if self.state == State.HELD:
            self.move(self._held_from)

    def answered(self, word: Resolution) -> None:
        """Keep what a person answered; what follows from it is moved to by others."""
        self.resolutions.append(word)
        self._said = said(word)

    def admit(self, grant: Grant) -> None:
        """Take over what is known of a request that gets no place."""
        self.admitted = grant
        self._know(grant)

    def _know(self, grant: Grant) -> None:
        # The run whose result is repeated has told everything.
        self.notices.know(grant.notify if grant.recorded is None else [])

    def move(self, state: State, reason: str = "", *, at: str = "", message: str = "") -> None:
        """Enter a state where that is a legal move, and show it; else change nothing."""
        if self._enter(state, reason, at, message):
            self.show()

    def refuse(self, message: str) -> None:
        """End without a result: nothing is sealed."""
        self.capsule = ""
        self.move(State.FAILED, Reason.REFUSED, message=message)

    def end(self, result: ExperimentResult) -> None:
        """Enter the final state, where it is read without a worker too: in the memo."""
        self.capsule = result.capsule
        self.move(State(result.state), result.reason, at=result.ended_at, message=result.message)
        workflow.upsert_memo(
            {
                names.MEMO_STATE: result.state,
                names.MEMO_REASON: result.reason,
                names.MEMO_CAPSULE: result.capsule,
            }
        )

    def attempt_ended(self, ended: AttemptResult) -> None:
        """Take over an ended attempt, and the states that passed too quickly for its signal.

        The result of an older worker names no time of collecting: it sent both signals.
        """
        self.attempts.append(ended)
        if ended.collecting_at and ended.started_at and self.state == State.PREPARING:
            self._enter(State.RUNNING, at=ended.started_at)
        if ended.collecting_at:
            self.move(State.COLLECTING, at=ended.collecting_at)

    def _enter(self, state: State, reason: str = "", at: str = "", message: str = "") -> bool:
        if self.timeline and not legal(self.state, state):
            return False
        self.state, self.reason = state, reason
        said, self._said = self._said, ""
        if state != State.HELD:
            self.question = None
        grant = self.grant
        moment = Moment(
            state=state,
            at=at or stamp(workflow.now()),
            reason=reason,
            backend=grant.backend if grant else "",
            epoch=grant.epoch if grant else 0,
            message=message if state == State.HELD else said,
        )
        self.timeline.append(moment)
        capsule = self.capsule if state.final else ""
        self.notices.entered(len(self.timeline), moment, message, capsule)
        return True

    def waits_for(self, reason: str) -> None:
        """Show why nothing goes on, without entering a state."""
        self.reason = reason
        self.show()

    def show(self) -> None:
        """Tell the story to Temporal's own UI: current details and search attributes."""
        grant = self.grant
        workflow.set_current_details(
            details(
                self.timeline,
                self.reason,
                grant,
                self.native_id,
                self.capsule,
                question=self.question,
                undone=self.compensations,
            )
        )
        if grant is not None and grant.search_attributes:
            workflow.upsert_search_attributes(  # pyright: ignore[reportUnknownMemberType]
                search_attributes(self.state, self.reason, grant)
            )

    def result(self, state: State, ended: AttemptResult | None) -> ExperimentResult:
        """Return the terminal record of a run that ends in ``state``.

        Args:
            state: The final state.
            ended: The attempt that decided it; None where none did.
        """
        grant = self.grant
        known = grant or self.admitted
        at = stamp(workflow.now())
        last = ended or AttemptResult(epoch=grant.epoch if grant else 0, backend="", ok=False)
        return ExperimentResult(
            state=state,
            tenant=known.tenant if known else "",
            request_id=known.request_id if known else "",
            digest=known.digest if known else "",
            reason="" if state == State.SUCCEEDED else last.reason,
            message=last.message,
            exit_code=last.exit_code,
            signal=last.signal,
            stderr_excerpt=last.stderr_excerpt,
            backend=grant.backend if grant else "",
            epoch=last.epoch,
            started_at=self.timeline[0].at,
            ended_at=at,
            capsule=grant.capsule if grant else "",
            outputs=last.outputs,
            attempts=self.attempts,
            timeline=[*self.timeline, Moment(state, at, last.reason, last.backend, last.epoch)],
            resolutions=self.resolutions,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return what the ``status`` query answers."""
        grant = self.grant
        return {
            "state": str(self.state),
            "reason": self.reason,
            "backend": grant.backend if grant else "",
            "epoch": grant.epoch if grant else 0,
            "native_id": self.native_id,
            "capsule": self.capsule,
            "changes": grant.changes if grant else [],
            "timeline": self.timeline,
            "question": self.question,
            "resolutions": self.resolutions,
            "compensations": self.compensations,
        }
