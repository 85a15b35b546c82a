"""Settle an epoch whose backend is silent: revoke its start, or take a person's word.

It is asked on the pool's queue, of any worker that shares the store. What settles it is an
object of the request record that one side alone can create, so it does not matter how late the
silent worker wakes up: an attempt whose start was revoked refuses itself before its first
effect, and one that a person has settled commits nothing.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING

from temporalio import activity
from temporalio.exceptions import ApplicationError

from temporal_fabric import names
from temporal_fabric.activities.heartbeat import beating
from temporal_fabric.failpoints import FailPoint, reach
from temporal_fabric.messages import (
    BUSY,
    MOVED,
    RESOLVED,
    REVOKED,
    STARTED,
    SettleAnswer,
    SettleInput,
)
from temporal_fabric.pollers import pollers

if TYPE_CHECKING:
    from temporal_fabric.activities.desk import Desk
    from temporal_fabric.record import RequestRecord


async def is_away(backend: str, silent_s: float) -> bool:
    """Say whether the worker of a backend is away, or merely busy.

    The server lists a killed worker for minutes. One that has not polled since its work was
    offered is away: if it were there, its open poll would have taken the work.

    Args:
        backend: The backend.
        silent_s: How long before this activity was scheduled the work was offered.
    """
    offered = activity.info().scheduled_time - timedelta(seconds=silent_s)
    polled = await pollers(activity.client(), names.backend_queue(backend))
    return all(at < offered for at in polled.values())


class Settle:
    """The ``settle`` activity of one worker."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @activity.defn(name=names.ACTIVITY_SETTLE)
    async def settle(self, asked: SettleInput) -> SettleAnswer:
        """Settle an epoch where that can be done; repeating it changes nothing.

        Returns:
            How it stands: REVOKED, its attempt will never start; STARTED, it may run, and
            nobody here can tell; MOVED, it is a flow that goes on from the store; BUSY, it
            will be taken; with a resolution how it is settled,
            RESOLVED unless something else came first.

        Raises:
            ApplicationError: retryable; this worker's store does not know the epoch.
        """
        async with beating():
            record = self._desk.record(asked.tenant, asked.request_id)
            known = next((k for k in await record.epochs() if k.epoch == asked.epoch), None)
            if known is None:
                raise ApplicationError(
                    f"the store of this worker does not know the epoch [epoch={asked.epoch}, "
                    f"store={self._desk.store.root}]: give every worker the same 'store'",
                    type="EpochNotKnown",
                )
            if asked.resolution is not None:
                more = asdict(asked.resolution)
                return SettleAnswer(await record.mark_ended(asked.epoch, RESOLVED, word=more))
            if not await is_away(asked.backend, asked.silent_s):
                return SettleAnswer(BUSY)
            if not known.claims or await record.claim_start(asked.epoch, REVOKED) == STARTED:
                return SettleAnswer(await self._of_started(record, asked))
            reach(FailPoint.SETTLE_REVOKED)
            await record.mark_ended(asked.epoch, REVOKED)
            return SettleAnswer(REVOKED)

    async def _of_started(self, record: RequestRecord, asked: SettleInput) -> str:
        if not await self._desk.copies.exist(asked.tenant, asked.request_id, asked.epoch):
            return STARTED
        # From here on the silent host refuses itself each further step, and its end.
        how = await record.mark_ended(asked.epoch, MOVED)
        return MOVED if how == MOVED else STARTED
