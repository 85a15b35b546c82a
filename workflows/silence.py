"""A backend whose worker is silent: revoke what it never started, else ask a person.

Work that the worker leaves untaken is offered again and again. Meanwhile any worker of the
pool is asked to revoke the epoch, which succeeds if its attempt never claimed its start. Where
it did, it may run, and no machine can tell: after the request's ``retry.lost_after`` the
experiment is HELD and a person is asked. Whatever comes first settles it: the backend's
return, or the answer.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError

from temporal_fabric import names
from temporal_fabric.clock import stamp
from temporal_fabric.messages import BUSY, MOVED, RESOLVED, REVOKED, SettleInput
from temporal_fabric.questions import Answer, Choice, Resolution
from temporal_fabric.states import Reason, State
from temporal_fabric.workflows import calls
from temporal_fabric.workflows.decisions import host_did_not_answer
from temporal_fabric.workflows.wishes import GivenUp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from temporal_fabric.messages import Grant
    from temporal_fabric.workflows.standing import Standing
    from temporal_fabric.workflows.wishes import Wishes

T = TypeVar("T")

_LONGEST = timedelta(hours=1)
"""Between two offers to a silent worker: each is a few events of the history."""

_BY = "temporal-fabric"
_GOES_ON = "a flow's only effect is its result: it goes on elsewhere from its copied checkpoint"
_GIVE_UP = Choice(Answer.ABORT, "nobody can say: it ends as LOST, and is not tried again")
_AFTER_ATTEMPT = (
    Choice(Answer.DONE, "it did its work, and nothing of it runs: it counts as a success"),
    Choice(Answer.NOT_DONE, "it did not, and nothing of it runs: it is tried again"),
    _GIVE_UP,
)
_FOR_ABSENCE = (
    Choice(Answer.NOT_DONE, "nothing of it runs: this is taken for the proof"),
    _GIVE_UP,
)


class Settled(Exception):
    """A wait ended because its epoch is settled although its backend is silent."""

    def __init__(self, resolution: Resolution | None) -> None:
        self.resolution = resolution
        """A person's word; None where the start was revoked."""

        super().__init__()


class Silence:
    """What is done about one epoch while its backend is silent.

    Args:
        grant: The placement of the run.
        pool: Whose workers are asked.
        standing: Shows the question.
        wishes: Where an answer arrives.
        epoch: The epoch; the grant's own where left out.
        backend: Where it may run; the grant's own where left out.
    """

    def __init__(
        self,
        grant: Grant,
        pool: str,
        standing: Standing,
        wishes: Wishes,
        *,
        epoch: int = 0,
        backend: str = "",
    ) -> None:
        self._grant = grant
        self._pool = pool
        self._standing = standing
        self._wishes = wishes
        self._epoch = epoch or grant.epoch
        self._backend = backend or grant.backend
        self._since: datetime | None = None
        self._waiting = wishes.within
        # Declared outputs lie on the silent host, and nobody can hash them. Nor can anybody give
        # their word for the certificates of a flow.
        more_than_a_word = grant.declared_outputs or grant.kind == names.KIND_FLOW
        self._choices: Sequence[Choice] = _AFTER_ATTEMPT[1:] if more_than_a_word else _AFTER_ATTEMPT
        self._what = (
            f"Nobody knows what became of epoch {self._epoch}, which was started there and may "
            "still run."
        )
        self._settles = True
        self.patience = timedelta(seconds=grant.patience_s)
        """How long the next offer is left untaken before the pool is asked."""

    @property
    def is_known(self) -> bool:
        """Whether the backend has left something untaken, and was not heard of since."""
        return self._since is not None

    async def until(self, ready: Callable[[], bool]) -> None:
        """Wait until something is so; meanwhile put the question when it is due.

        Raises:
            Settled: a person answered it, and their word stands.
            CancelRequested: a person cancelled, and it is not so.
            DeadlinePassed: it is too late, and it is not so.
        """
        while True:
            left = self._left()
            if await self._waiting(left, "lost_after", lambda: ready() or self._is_answered()):
                if not self._is_answered():
                    return
                await self._take_word()
            elif self._left() is not None:
                self._hold()

    async def heard_nothing(self) -> None:
        """Find out why the worker left its work untaken, and revoke the epoch where possible.

        Raises:
            Settled: the epoch is revoked, it is a flow that moves, or a person answered meanwhile.
            CancelRequested: a person cancelled.
            DeadlinePassed: it is too late.
        """
        self._since = self._since or workflow.now()
        handle = calls.settle(self._pool, self._asked())
        try:
            await self.until(handle.done)
        finally:
            if not handle.done():
                handle.cancel()
        how = handle.result().how
        if how == REVOKED:
            raise Settled(None)
        if how == MOVED:
            word = Resolution(
                Answer.NOT_DONE, _BY, _GOES_ON, epoch=self._epoch, at=stamp(workflow.now())
            )
            self._standing.answered(word)
            raise Settled(word)
        if how == BUSY:
            self._since = None
        if self._standing.state != State.HELD:
            down = Reason.WAITING_FOR_CAPACITY if how == BUSY else Reason.BACKEND_DOWN
            self._standing.waits_for(down)
        self.patience = max(self.patience, min(2 * self.patience, _LONGEST))

    async def proven_absent(self) -> None:
        """Return with the proof that nothing of the epoch runs, or with a person's word for it.

        Nothing else ends this wait.

        Raises:
            GivenUp: a person says that nobody can know.
        """
        if self._grant.lost_after_s is None:
            await calls.ensure_absent(self._grant, self._epoch, self._backend, None)
            return
        before = self._standing.state
        self._waiting, self._choices = self._wishes.regardless, _FOR_ABSENCE
        offer = partial(calls.ensure_absent, self._grant, self._epoch, self._backend)
        try:
            while await self.offered(offer) is None:
                pass
        except Settled as settled:
            self._standing.give_up_files(self._epoch)
            if settled.resolution and settled.resolution.answer == Answer.ABORT:
                raise GivenUp(self._epoch, self._backend, settled.resolution) from settled
        if self._standing.state == State.HELD and before != State.HELD:
            self._standing.move(before)

    def of_what_lies_there(self, what: str, choices: Sequence[Choice]) -> None:
        """Let it be about files on the backend's host, of an epoch that is known to have ended.

        Then nothing but the host or a person's word ends a wait, and the word is not recorded as
        the epoch's end: whoever is told of it sees to that.

        Args:
            what: What a person is told beside since when it is silent.
            choices: What they may answer.
        """
        self._what, self._choices, self._settles = what, choices, False
        self._waiting = self._wishes.regardless

    async def offered(
        self, offer: Callable[[timedelta], workflow.ActivityHandle[T]]
    ) -> tuple[T] | None:
        """Offer work to the backend's worker once; None where it was not taken.

        Args:
            offer: Starts the activity, which may be left untaken for so long.

        Raises:
            ActivityError: the work failed.
            Settled: the epoch is revoked, or a person answered meanwhile.
        """
        handle = offer(self.patience)
        try:
            await self.until(handle.done)
            return (handle.result(),)
        except ActivityError as exc:
            if not host_did_not_answer(exc):
                raise
        finally:
            if not handle.done():
                handle.cancel()
        await self.heard_nothing()
        return None

    def _left(self) -> timedelta | None:
        """Return the time until a person is asked; None where that is not to come."""
        lost_after_s, heard = self._grant.lost_after_s, self._standing.heard
        if self._since is not None and heard is not None and heard > self._since:
            self._since = None
        if self._since is None or lost_after_s is None or self._standing.state == State.HELD:
            return None
        due = self._since + timedelta(seconds=lost_after_s)
        return max(due - workflow.now(), timedelta(0))

    def _hold(self) -> None:
        since = f"{self._since:%Y-%m-%d %H:%M} UTC" if self._since else ""
        text = f"{self._backend} has been silent since {since}. {self._what}"
        self._standing.hold(text, self._choices, self._epoch, self._backend, Reason.BACKEND_DOWN)

    def _is_answered(self) -> bool:
        return self._wishes.answer is not None

    async def _take_word(self) -> None:
        """Let a person's word settle the epoch, unless something else has.

        Raises:
            Settled: it did.
        """
        word = self._wishes.answer
        if word is None:
            return
        if not self._settles:
            self._wishes.answer = None
            self._standing.answered(word)
            raise Settled(word)
        handle = calls.settle(self._pool, self._asked(word))
        # From here on it counts: neither a cancellation nor a deadline takes it back.
        await workflow.wait_condition(handle.done)
        how = handle.result().how
        self._wishes.answer = None
        if how != RESOLVED:
            self._standing.unasked()
            return
        self._standing.answered(word)
        raise Settled(word)

    def _asked(self, word: Resolution | None = None) -> SettleInput:
        grant, silent_s = self._grant, self.patience.total_seconds()
        return SettleInput(
            grant.tenant, grant.request_id, self._epoch, self._backend, silent_s, word
        )
