"""Tell of this worker's backends, take one out of service, or stop it: standalone activities."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from temporalio import activity
from temporalio.exceptions import ApplicationError

from temporal_fabric import names
from temporal_fabric.activities.halting import halt_backend
from temporal_fabric.activities.heartbeat import beating
from temporal_fabric.adapters.experimental import experimental
from temporal_fabric.backend_state import (
    FAILING,
    OK,
    BackendsAnswer,
    BackendState,
    DrainInput,
    HaltAnswer,
    HaltInput,
)
from temporal_fabric.errors import FabricError

if TYPE_CHECKING:
    from temporal_fabric.activities.desk import Desk


class Backends:
    """The ``backends``, ``drain`` and ``halt`` activities of one worker."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @activity.defn(name=names.ACTIVITY_BACKENDS)
    async def backends(self) -> BackendsAnswer:
        """Return what each backend of this worker has, uses and lacks. No effect."""
        async with beating():
            told = await asyncio.gather(*(self._state(name) for name in self._desk.backends))
        return BackendsAnswer(self._desk.host, list(told))

    @activity.defn(name=names.ACTIVITY_DRAIN)
    async def drain(self, asked: DrainInput) -> BackendState:
        """Grant nothing new on a backend, or grant again; repeating it changes nothing.

        Returns:
            The backend as it is then.

        Raises:
            ApplicationError: non-retryable, the mark could not be written and nothing has
                changed; or retryable, this worker does not serve the backend.
        """
        places = self._desk.capacity(asked.backend)
        async with beating():
            try:
                await asyncio.to_thread(places.mark.put, drained=asked.drained, reason=asked.reason)
            except OSError as exc:
                text = f"{asked.backend}: its mark could not be changed: {exc}"
                raise ApplicationError(text, non_retryable=True) from exc
            places.call_first()
            return await self._state(asked.backend)

    @activity.defn(name=names.ACTIVITY_HALT)
    async def halt(self, asked: HaltInput) -> HaltAnswer:
        """Stop the device of a backend at once, and grant nothing new there.

        Raises:
            ApplicationError: non-retryable; it cannot be stopped, or did not answer.
        """
        adapter, places = self._desk.backend(asked.backend), self._desk.capacity(asked.backend)
        async with beating():
            try:
                return await halt_backend(adapter, places.mark, asked)
            except FabricError as exc:
                raise ApplicationError(str(exc), non_retryable=True) from exc

    async def _state(self, name: str) -> BackendState:
        adapter, places = self._desk.backend(name), self._desk.capacity(name)
        mark = places.drained
        told = BackendState(
            name=name,
            kind=adapter.kind,
            slots=adapter.slots,
            used=places.used,
            waiting=places.waiting + self._desk.gpu_line.waiting_on(name),
            drained=mark is not None,
            drained_since=mark.since if mark else "",
            drained_reason=mark.reason if mark else "",
            unusable=str(mark or ""),
            experimental=await asyncio.to_thread(experimental, adapter.kind),
        )
        try:
            found = await adapter.inventory()
        except FabricError as exc:
            return replace(told, health=FAILING, unusable=str(exc))
        return replace(
            told,
            health=OK if found.healthy else FAILING,
            labels=found.labels,
            isolation=dict(found.detail.get("isolation", {})),
            gpus=list(found.detail.get("gpus", ())),
            no_gpus=str(found.detail.get("no_gpus", "")),
            usd_per_hour=found.usd_per_hour,
            unusable=told.unusable
            or ("" if found.healthy else found.unusable or "the backend is not healthy"),
        )
