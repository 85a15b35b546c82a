"""Submissions that come together leave together: those of one shape as one array of jobs.

Nothing is remembered here. What makes an attempt an element of an array, once and for good, is
written on the cluster; see `slurm_on_login_submit`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from temporal_fabric.errors import BackendUnknown

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence

    from temporal_fabric.adapters.slurm_parcels import Parcel

_MUCH = 1 << 22
"""What the attempts of an array may bring with them, in characters."""

_APART = 10
"""When nobody has come for so many times as long as the last came apart, nobody is waited for."""

_LOOKS = 60
"""In the longest wait."""


@dataclass(frozen=True, slots=True)
class _Waiter:
    parcel: Parcel
    left: asyncio.Future[str]
    """Its job's id."""


class Gathering:
    """Lets submissions wait for others while many come; one that comes alone leaves at once.

    Args:
        least: So many become an array; 0 for none ever.
        wait_s: The longest wait. So many as would be an array have to come in this time, else
            nobody waits.
        alone: Submits one attempt; returns its job's id.
        together: Submits many of one shape as one array; returns the ids, by name, of those that
            have become elements of it. The others are submitted alone.
    """

    def __init__(
        self,
        least: int,
        wait_s: float,
        alone: Callable[[Parcel], Awaitable[str]],
        together: Callable[[Sequence[Parcel]], Awaitable[dict[str, str]]],
    ) -> None:
        self._least, self._wait_s, self._alone, self._together = least, wait_s, alone, together
        self._came: deque[float] = deque(maxlen=least)
        self._coming = 0
        self._waiting: list[_Waiter] = []
        self._leaving: asyncio.Task[None] | None = None

    @contextmanager
    def coming(self) -> Generator[None]:
        """Let the others know of a submission while it is made ready."""
        self._came.append(time.monotonic())
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1

    async def submit(self, parcel: Parcel, largest: int) -> str:
        """Submit one attempt and return its job's id.

        Args:
            parcel: The attempt.
            largest: How many elements an array may have at this site; 0 where there are none.

        Raises:
            TransientBackendError: nobody knows whether it was submitted.
            PermanentBackendError: the site refuses it for good.
        """
        if not self._many() or largest < self._least:
            return await self._alone(parcel)
        waiter = _Waiter(parcel, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        if self._leaving is None or self._leaving.done():
            self._leaving = asyncio.create_task(self._leave(largest))
        return await waiter.left

    async def aclose(self) -> None:
        """Give up what waits."""
        if self._leaving is not None:
            self._leaving.cancel()
            with suppress(asyncio.CancelledError):
                await self._leaving

    def _many(self) -> bool:
        """Say whether so many have come of late that an array would be filled."""
        full = 0 < self._least <= len(self._came)
        return full and time.monotonic() - self._came[0] <= self._wait_s

    async def _leave(self, largest: int) -> None:
        waiting: list[_Waiter] = []
        try:
            while self._waiting:
                await self._gather(largest)
                waiting, self._waiting = self._waiting, []
                wanted = [waiter for waiter in waiting if not waiter.left.done()]
                groups = _groups(wanted, largest)
                await asyncio.gather(*(self._submit(group) for group in groups))
        except asyncio.CancelledError:
            _fail([*waiting, *self._waiting], BackendUnknown("the adapter was closed"))
            raise

    async def _gather(self, largest: int) -> None:
        """Wait until nobody comes any more, or for long enough."""
        until = time.monotonic() + self._wait_s
        while (now := time.monotonic()) < until and len(self._waiting) < largest:
            apart = (self._came[-1] - self._came[0]) / len(self._came)
            if not self._coming and now - self._came[-1] > _APART * apart:
                return
            await asyncio.sleep(self._wait_s / _LOOKS)

    async def _submit(self, group: Sequence[_Waiter]) -> None:
        ids: dict[str, str] = {}
        if len(group) >= self._least:
            try:
                ids = await self._together([waiter.parcel for waiter in group])
            except Exception as exc:  # noqa: BLE001 - it is handed to those who wait
                _fail(group, exc)
                return
        await asyncio.gather(*(self._answer(each, ids.get(each.parcel.name)) for each in group))

    async def _answer(self, waiter: _Waiter, found: str | None) -> None:
        try:
            found = found or await self._alone(waiter.parcel)
        except Exception as exc:  # noqa: BLE001 - it is handed to who waits
            _fail([waiter], exc)
        else:
            if not waiter.left.done():
                waiter.left.set_result(found)


def _groups(waiters: Sequence[_Waiter], largest: int) -> Iterator[list[_Waiter]]:
    """Yield those of one shape together, as many as an array takes; nobody twice."""
    filling: dict[tuple[object, ...], dict[str, _Waiter]] = {}
    for waiter in waiters:
        parcel = waiter.parcel
        group = filling.setdefault(parcel.shape, {})
        size = sum(each.parcel.size for each in group.values())
        if parcel.name in group or len(group) == largest or size > _MUCH:
            yield [*filling.pop(parcel.shape).values()]
        filling.setdefault(parcel.shape, {})[parcel.name] = waiter
    for group in filling.values():
        yield [*group.values()]


def _fail(waiters: Sequence[_Waiter], exc: Exception) -> None:
    for waiter in waiters:
        if not waiter.left.done():
            waiter.left.set_exception(exc)
