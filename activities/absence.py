"""Prove that nothing of one epoch runs, and that it never will.

A cancellation, a timeout or a dead worker can end `attempt` without any of its code having
run, so this is a separate activity with unlimited retries: what follows it may rely on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from temporalio import activity

from temporal_fabric import names
from temporal_fabric.activities.heartbeat import beating
from temporal_fabric.adapters.contract import AttemptKey
from temporal_fabric.failpoints import FailPoint, reach
from temporal_fabric.messages import AbsentInput

if TYPE_CHECKING:
    from temporal_fabric.activities.desk import Desk


class EnsureAbsent:
    """The ``ensure_absent`` activity of one worker."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @activity.defn(name=names.ACTIVITY_ENSURE_ABSENT)
    async def ensure_absent(self, asked: AbsentInput) -> None:
        """Return only with proof of absence; the epoch is forbidden from then on."""
        async with beating():
            adapter = self._desk.backend(asked.backend)
            key = AttemptKey(asked.tenant, asked.request_id, asked.epoch)
            reach(FailPoint.ABSENCE_ASKED)
            await self._desk.forbid_flow(key)
            await adapter.terminate(key, asked.grace_s)
            reach(FailPoint.ABSENCE_PROVEN)
            await self._desk.record(asked.tenant, asked.request_id).mark_ended(
                asked.epoch, "terminated"
            )
            self._desk.capacity(asked.backend).release(activity.info().workflow_id or "")
