"""The emergency stop of a backend: in its worker, or beside it on the same host."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from temporal_fabric.adapters.capabilities import Halting
from temporal_fabric.backend_state import HaltAnswer
from temporal_fabric.errors import BackendUnknown, PermanentBackendError, TransientBackendError

if TYPE_CHECKING:
    from temporal_fabric.adapters.contract import Adapter
    from temporal_fabric.backend_state import HaltInput
    from temporal_fabric.draining import DrainMark


async def halt_backend(adapter: Adapter, mark: DrainMark, asked: HaltInput) -> HaltAnswer:
    """Stop a device at once, and place nothing new there.

    Args:
        adapter: Of the backend.
        mark: Says that it is drained.
        asked: Who wants it, and why.

    Raises:
        PermanentBackendError: this backend has nothing that could be stopped so.
        BackendUnknown: nobody knows whether it has stopped.
    """
    name = adapter.get_name()
    if not isinstance(adapter, Halting):
        text = f"{name} moves nothing that could be stopped at once"
        raise PermanentBackendError(f"{text}: temporal-fabric cancel ends an experiment")
    why = f": {asked.reason}" if asked.reason else ""
    try:
        await asyncio.to_thread(mark.put, drained=True, reason=f"halted by {asked.by}{why}")
    except OSError:  # whatever the disk is like, the device stops
        drained = False
    else:
        drained = True
    try:
        found = await adapter.halt(asked.by, asked.reason)
    except TransientBackendError as exc:
        text = f"nobody knows whether the device of {name} has stopped"
        raise BackendUnknown(f"{text}: use its own emergency stop; {exc}") from exc
    if found.attempt is None or found.status is None:
        return HaltAnswer(name, drained=drained)
    return HaltAnswer(
        name,
        found.attempt.tenant,
        found.attempt.request_id,
        found.attempt.epoch,
        found.status.message,
        found.status.question,
        drained,
    )
