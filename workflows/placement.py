"""Asking the pool for a place, as often as the experiment needs one."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from temporalio import workflow
from temporalio.exceptions import ActivityError

from temporal_fabric import names
from temporal_fabric.clock import stamp
from temporal_fabric.messages import AcquireInput, Grant
from temporal_fabric.states import Reason
from temporal_fabric.workflows import calls
from temporal_fabric.workflows.decisions import (
    host_did_not_answer,
    is_drained,
    pool_of,
    refusal,
)
from temporal_fabric.workflows.wishes import CancelRequested, DeadlinePassed

if TYPE_CHECKING:
    from collections.abc import Callable

    from temporal_fabric.workflows.standing import Standing
    from temporal_fabric.workflows.wishes import Wishes


_MOST_URGENT = 10
_NEAR = timedelta(seconds=30)
"""How long a compensation waits for the host where the payload has left its files."""


class HostSilent(Exception):
    """The host that was asked in place of the pool did not take the question, or is drained."""


class Placement:
    """The grants of one run, one after the other."""

    def __init__(self, body: Any, standing: Standing, wishes: Wishes) -> None:
        self._body = body
        self.pool = pool_of(body)
        self._standing = standing
        self._wishes = wishes
        self.number = 0
        """Grants asked for so far; with the run id it names a grant, however often it is asked."""

        self._avoided: list[str] = []

    def avoid(self, backend: str) -> None:
        """Take a backend last from now on: it was silent."""
        if backend not in self._avoided:
            self._avoided.append(backend)

    def _left(self) -> Grant | None:
        """Return the place that a flow was preempted at: its checkpoint lies on that host."""
        grant, attempts = self._standing.grant, self._standing.attempts
        preempted = bool(attempts) and attempts[-1].reason == Reason.PREEMPTED
        return grant if grant and grant.kind == names.KIND_FLOW and preempted else None

    async def next(self) -> Grant:
        """Return the next grant.

        Raises:
            ApplicationError: the request is refused, or nothing could ever run it.
            CancelRequested: a person cancelled while it waited.
            DeadlinePassed: it is too late.
        """
        self.number += 1
        wishes, request, grant = self._wishes, self._request(), None
        near = self._left()
        while grant is None:
            # Paused, it asks for nothing; `since` keeps its place in line.
            await wishes.stand_still(self._standing)
            asked, priority = workflow.now(), wishes.priority
            request = replace(request, priority=priority, near=near is not None)
            try:
                grant = await self._asked(request, partial(self._changed, priority), near)
            except HostSilent:
                near = None
            waited = (workflow.now() - asked).total_seconds()
            request = replace(request, waited_s=request.waited_s + waited)
        if grant.denied:
            self._standing.admit(grant)
            return grant
        if grant.deadline:
            wishes.deadline = datetime.fromisoformat(grant.deadline)
        self._standing.placed(grant)
        return grant

    def _changed(self, priority: int) -> bool:
        return self._wishes.paused or self._wishes.priority != priority

    def _request(self) -> AcquireInput:
        info = workflow.info()
        return AcquireInput(
            body=self._body,
            number=self.number,
            memo_digest=workflow.memo_value(names.MEMO_DIGEST, "", type_hint=str),
            retry_of=workflow.memo_value(names.MEMO_RETRY_OF, "", type_hint=str),
            failures=[ended.reason for ended in self._standing.attempts],
            submitted=stamp(info.start_time),
            since=stamp(workflow.now()),
            reset=info.run_id != info.first_execution_run_id,
            avoided=self._avoided,
        )

    async def compensating(self, name: str, near: str) -> Grant:
        """Return a grant for a compensation, on a given backend's host where that answers.

        Raises:
            ActivityError: it is refused.
        """
        self.number += 1
        request = replace(self._request(), compensation=name, priority=_MOST_URGENT)
        handle = calls.acquire(names.backend_queue(near), request, _NEAR)
        try:
            return await handle
        except ActivityError as exc:
            if not host_did_not_answer(exc):
                raise
        return await calls.acquire(names.pool_queue(self.pool), request)

    async def ask(self, request: AcquireInput) -> Grant:
        """Put one question to the pool.

        Raises:
            ApplicationError: the request is refused.
            CancelRequested: a person cancelled while it waited.
        """
        answer = None
        while answer is None:
            answer = await self._asked(request, lambda: False)
        return answer

    async def _asked(
        self, request: AcquireInput, enough: Callable[[], bool], near: Grant | None = None
    ) -> Grant | None:
        """Ask once; None where it was called off because it is `enough`.

        Args:
            request: What is asked.
            enough: Whether no answer is wanted any more.
            near: A placement whose host is asked in place of the pool.

        Raises:
            HostSilent: that host did not take the question, or leaves it to others.
        """
        if near is None:
            handle = calls.acquire(names.pool_queue(self.pool), request)
        else:
            patience = timedelta(seconds=near.patience_s)
            handle = calls.acquire(names.backend_queue(near.backend), request, patience)
        try:
            await self._wishes.until(lambda: handle.done() or enough())
        except (CancelRequested, DeadlinePassed):
            handle.cancel()
            raise
        if not handle.done():
            handle.cancel()
            return None
        try:
            return handle.result()
        except ActivityError as exc:
            if near is not None and (host_did_not_answer(exc) or is_drained(exc)):
                raise HostSilent from exc
            refused = refusal(exc)
            self._standing.refuse(refused.message)
            raise refused from exc
