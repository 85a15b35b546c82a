"""What people ask of a running experiment, and waits that end when they do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from temporalio import workflow

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta


class CancelRequested(Exception):
    """A wait ended because a person cancelled the experiment."""


class Wishes:
    """What has been asked for. Handlers write it, the life of the experiment reads it."""

    def __init__(self) -> None:
        self.cancelled = False

    async def until(self, ready: Callable[[], bool]) -> None:
        """Wait until something is so.

        Raises:
            CancelRequested: a person cancelled, and it is not so.
        """
        await workflow.wait_condition(lambda: ready() or self.cancelled)
        if not ready():
            raise CancelRequested

    async def pause_for(self, time: timedelta, why: str) -> None:
        """Let some time pass.

        Args:
            time: How long.
            why: What the timer is called in Temporal's UI.

        Raises:
            CancelRequested: a person cancelled meanwhile.
        """
        try:
            await workflow.wait_condition(lambda: self.cancelled, timeout=time, timeout_summary=why)
        except TimeoutError:
            return
        raise CancelRequested
