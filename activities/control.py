"""Act on the live payload of one attempt while another activity goes on supervising it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from temporalio import activity
from temporalio.exceptions import ApplicationError

from temporal_fabric import names
from temporal_fabric.activities.heartbeat import beating
from temporal_fabric.adapters.capabilities import Pausing
from temporal_fabric.adapters.contract import AttemptKey, Phase
from temporal_fabric.clock import now
from temporal_fabric.errors import PermanentBackendError
from temporal_fabric.messages import ControlAnswer, ControlInput

if TYPE_CHECKING:
    from temporal_fabric.activities.desk import Desk


class Control:
    """The ``control`` activity of one worker."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @activity.defn(name=names.ACTIVITY_CONTROL)
    async def control(self, asked: ControlInput) -> ControlAnswer:
        """Let the payload of an epoch stand still, or go on; repeating it changes nothing.

        Returns:
            What is so now; of a payload that has ended, that it has.

        Raises:
            ApplicationError: non-retryable; this backend cannot do that.
        """
        adapter = self._desk.backend(asked.backend)
        if not isinstance(adapter, Pausing):
            text = f"{asked.backend} cannot let a payload stand still"
            raise ApplicationError(text, type="E_CONFLICT", non_retryable=True)
        key = AttemptKey(asked.tenant, asked.request_id, asked.epoch)
        act = adapter.pause if asked.action == names.ACTION_PAUSE else adapter.resume
        async with beating():
            try:
                status = await act(key)
            except PermanentBackendError as exc:
                raise ApplicationError(str(exc), type="E_CONFLICT", non_retryable=True) from exc
        live = status.phase is Phase.RUNNING
        return ControlAnswer(live=live, paused=status.paused, at=now())
