"""What people ask of a running experiment, and waits that end when they do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from temporalio import workflow

from temporal_fabric.states import State

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime, timedelta

    from temporal_fabric.questions import Resolution
    from temporal_fabric.workflows.standing import Standing


class CancelRequested(Exception):
    """A wait ended because a person cancelled the experiment."""


class DeadlinePassed(Exception):
    """A wait ended because the experiment's deadline has passed."""


class GivenUp(Exception):
    """A person says that nobody can know what became of an epoch."""

    def __init__(self, epoch: int, backend: str, resolution: Resolution) -> None:
        self.epoch, self.backend, self.resolution = epoch, backend, resolution
        super().__init__()


class Wishes:
    """What has been asked for. Handlers write it, the life of the experiment reads it."""

    def __init__(self) -> None:
        self.cancelled = False
        self.shielded = False
        """Whether nothing of it ends a wait any more: what was done is being undone."""

        self.paused = False
        self.priority = 0
        """1 to 10 where somebody has changed it, else 0."""

        self.deadline: datetime | None = None
        """When the experiment must have ended, paused or not."""

        self.answer: Resolution | None = None
        """What a person has answered to the open question, until it is taken."""

        self.refused = ""
        """Why the last wish could not be granted."""

    async def until(self, ready: Callable[[], bool]) -> None:
        """Wait until something is so.

        Raises:
            CancelRequested: a person cancelled, and it is not so.
            DeadlinePassed: it is too late, and it is not so.
        """
        await self.within(None, "", ready)

    async def within(self, time: timedelta | None, why: str, ready: Callable[[], bool]) -> bool:
        """Wait until something is so, at most for some time; say whether it is.

        Args:
            time: How long; None for ever.
            why: What the timer is called in Temporal's UI.
            ready: Whether it is so.

        Raises:
            CancelRequested: a person cancelled, and it is not so.
            DeadlinePassed: it is too late, and it is not so.
        """
        if self.shielded:
            return await self.regardless(time, why, ready)
        left = None if self.deadline is None else self.deadline - workflow.now()
        late = left is not None and (time is None or left < time)
        limit, called = (left, "deadline") if late else (time, why)
        if late and left is not None and left.total_seconds() <= 0 and not ready():
            raise DeadlinePassed
        try:
            await workflow.wait_condition(
                lambda: ready() or self.cancelled, timeout=limit, timeout_summary=called
            )
        except TimeoutError:
            if late:
                raise DeadlinePassed from None
            return False
        if not ready():
            raise CancelRequested
        return True

    async def regardless(self, time: timedelta | None, why: str, ready: Callable[[], bool]) -> bool:
        """As `within`, for what neither a cancellation nor a deadline ends."""
        try:
            await workflow.wait_condition(ready, timeout=time, timeout_summary=why)
        except TimeoutError:
            return False
        return True

    async def time(self, time: timedelta, why: str, standing: Standing) -> None:
        """Let some time pass, which a pause does not stop but may lengthen.

        Args:
            time: How long.
            why: What the timer is called in Temporal's UI.
            standing: Shows a pause.

        Raises:
            CancelRequested: a person cancelled meanwhile.
            DeadlinePassed: it is too late.
        """
        end = workflow.now() + time
        while (left := end - workflow.now()).total_seconds() > 0:
            if not await self.within(left, why, lambda: self.paused):
                return
            await self.stand_still(standing)

    async def stand_still(self, standing: Standing) -> None:
        """Be PAUSED for as long as a person wants it, then stand as before.

        Raises:
            CancelRequested: a person cancelled meanwhile.
            DeadlinePassed: it is too late.
        """
        if not self.paused or self.shielded:
            return
        before, reason = standing.state, standing.reason
        standing.move(State.PAUSED)
        await self.until(lambda: not self.paused)
        standing.move(before, reason)
