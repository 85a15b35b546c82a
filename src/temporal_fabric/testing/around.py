"""Adapters round an adapter: one that hands everything on, and one that loses calls."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from temporal_fabric.errors import BackendUnknown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from temporal_fabric.adapters.contract import (
        Adapter,
        AttemptKey,
        AttemptSpec,
        Inventory,
        JobHandle,
        JobStatus,
        Verdict,
    )
    from temporal_fabric.requests.models import ExecutionRequest

T = TypeVar("T")

_LATE_S = 1.0


class Around:
    """Hands every call on; a subclass changes what it is about.

    Args:
        inner: The adapter that does the work.
    """

    def __init__(self, inner: Adapter) -> None:
        self.inner = inner

    @property
    def kind(self) -> str:
        """See `Adapter.kind`."""
        return self.inner.kind

    @property
    def slots(self) -> int | None:
        """See `Adapter.slots`."""
        return self.inner.slots

    def get_name(self) -> str:
        """See `Adapter.get_name`."""
        return self.inner.get_name()

    async def can_fulfill(self, request: ExecutionRequest) -> Verdict:
        """See `Adapter.can_fulfill`."""
        return await self._pass("can_fulfill", self.inner.can_fulfill(request))

    async def submit(self, attempt: AttemptSpec) -> JobHandle:
        """See `Adapter.submit`."""
        return await self._pass("submit", self.inner.submit(attempt))

    async def find(self, key: AttemptKey) -> JobStatus:
        """See `Adapter.find`."""
        return await self._pass("find", self.inner.find(key))

    async def get_status(self, handle: JobHandle) -> JobStatus:
        """See `Adapter.get_status`."""
        return await self._pass("get_status", self.inner.get_status(handle))

    async def wait(self, handle: JobHandle, limit_s: float) -> JobStatus:
        """See `Adapter.wait`."""
        return await self._pass("wait", self.inner.wait(handle, limit_s))

    def stream_logs(self, handle: JobHandle, from_offset: int = 0) -> AsyncIterator[bytes]:
        """See `Adapter.stream_logs`."""
        return self.inner.stream_logs(handle, from_offset)

    async def terminate(self, key: AttemptKey, grace_s: float) -> JobStatus:
        """See `Adapter.terminate`."""
        return await self._pass("terminate", self.inner.terminate(key, grace_s))

    async def forget(self, key: AttemptKey) -> None:
        """See `Adapter.forget`."""
        await self._pass("forget", self.inner.forget(key))

    async def inventory(self) -> Inventory:
        """See `Adapter.inventory`."""
        return await self._pass("inventory", self.inner.inventory())

    async def aclose(self) -> None:
        """See `Adapter.aclose`."""
        await self.inner.aclose()

    async def _pass(self, call: str, work: Awaitable[T]) -> T:
        """Do one call; a subclass may let something happen to it."""
        del call
        return await work


class Shim(Around):
    """Loses one kind of call, or its answers.

    Args:
        inner: The adapter that does the work.
        call: Name of the method that meets the fault.
        fault: ``lost_request``, ``lost_reply`` or ``late_reply``.
    """

    def __init__(self, inner: Adapter, call: str, fault: str) -> None:
        super().__init__(inner)
        self._call, self._fault = call, fault

    async def _pass(self, call: str, work: Awaitable[Any]) -> Any:
        if call != self._call:
            return await work
        if self._fault == "lost_request":
            asyncio.ensure_future(work).cancel()
            raise BackendUnknown(f"the call was lost [call={call}]")
        answer = await work
        if self._fault == "lost_reply":
            raise BackendUnknown(f"the answer was lost [call={call}]")
        await asyncio.sleep(_LATE_S)
        return answer
