"""Which moments of a run its request wants told, each to each receiver once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from temporalio import workflow

from temporal_fabric import names
from temporal_fabric.messages import Notice
from temporal_fabric.workflows import calls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from temporal_fabric.messages import NotifyRule
    from temporal_fabric.outcomes import Moment


class Notices:
    """The notices of one run.

    Who is told stands in the request, which the workflow does not read: the first answer of
    an activity brings it. Moments before that wait for it.
    """

    def __init__(self) -> None:
        self._rules: Sequence[NotifyRule] | None = None
        self._waiting: list[Notice] = []
        self._starting: list[asyncio.Task[None]] = []

    def know(self, rules: Sequence[NotifyRule]) -> None:
        """Learn who is told of what, and tell what has happened already."""
        self._rules = rules
        waiting, self._waiting = self._waiting, []
        for notice in waiting:
            self._tell(notice, rules)

    def entered(self, number: int, moment: Moment, message: str = "", capsule: str = "") -> None:
        """Tell of one moment of the timeline.

        Args:
            number: Its place in the timeline, from 1 on.
            moment: What was entered.
            message: How it came to it, for a person.
            capsule: URI of the capsule where it is sealed.
        """
        info = workflow.info()
        tenant, request_id = names.request_of(info.workflow_id)
        notice = Notice(
            url="",
            tenant=tenant,
            request_id=request_id,
            run_id=info.run_id,
            number=number,
            state=moment.state,
            at=moment.at,
            reason=moment.reason,
            message=message,
            backend=moment.backend,
            epoch=moment.epoch,
            capsule=capsule,
        )
        if self._rules is None:
            self._waiting.append(notice)
        else:
            self._tell(notice, self._rules)

    async def started(self) -> None:
        """Return once everything that was told lasts without this workflow."""
        for failed in await asyncio.gather(*self._starting, return_exceptions=True):
            if failed is not None:
                workflow.logger.warning("a notice could not be started: %s", failed)

    def _tell(self, notice: Notice, rules: Sequence[NotifyRule]) -> None:
        # Two entries may name one receiver, which is told once all the same.
        for url in dict.fromkeys(rule.url for rule in rules if notice.state in rule.on):
            start = calls.start_notice(replace(notice, url=url))
            self._starting.append(asyncio.create_task(start))
