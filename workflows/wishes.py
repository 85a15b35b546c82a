"""What people ask of a running experiment, and waits that end when they do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from temporalio import workflow

from temporal_fabric.states import State

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from temporal_fabric.workflows.standing import Standing


class CancelRequested(Exception):
    """A wait ended because a person cancelled the experiment."""


class Wishes:
    """What has been asked for. Handlers write it, the life of the experiment reads it."""

    def __init__(self) -> None:
        self.cancelled = False
        self.paused = False
        self.refused = ""
        """Why the last wish could not be granted."""

    async def until(self, ready: Callable[[], bool]) -> None:
        """Wait until something is so.

        Raises:
            CancelRequested: a person cancelled, and it is not so.
        """
        await workflow.wait_condition(lambda: ready() or self.cancelled)
        if not ready():
            raise CancelRequested

    async def time(self, time: timedelta, why: str, standing: Standing) -> None:
        """Let some time pass, which a pause does not stop but may lengthen.

        Args:
            time: How long.
            why: What the timer is called in Temporal's UI.
            standing: Shows a pause.

        Raises:
            CancelRequested: a person cancelled meanwhile.
        """
        end = workflow.now() + time
        while (left := end - workflow.now()).total_seconds() > 0:
            try:
                await workflow.wait_condition(
                    lambda: self.cancelled or self.paused, timeout=left, timeout_summary=why
                )
            except TimeoutError:
                return
            if self.cancelled:
                raise CancelRequested
            await self.stand_still(standing)

    async def stand_still(self, standing: Standing) -> None:
        """Be PAUSED for as long as a person wants it, then stand as before.

        Raises:
            CancelRequested: a person cancelled meanwhile.
        """
        if not self.paused:
            return
        before, reason = standing.state, standing.reason
        standing.move(State.PAUSED)
        await self.until(lambda: not self.paused)
        standing.move(before, reason)
