"""One look at the queue for everybody who wants one: Slurm's controller serves all its users.

Whoever asks while a look is under way gets the next one, together with all others.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters.slurm_states import Seen, read_seen
from temporal_fabric.errors import BackendUnknown
from temporal_fabric.shapes import is_table

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_Waiting = dict[str, list["asyncio.Future[Seen]"]]


class Looks:
    """Collects the names that are asked for.

    Args:
        look: Looks at several jobs; returns what is seen by name.
    """

    def __init__(self, look: Callable[[list[str]], Awaitable[Any]]) -> None:
        self._look = look
        self._waiting: _Waiting = {}
        self._looking: asyncio.Task[None] | None = None

    async def at(self, name: str) -> Seen:
        """Return what is seen of one job.

        Raises:
            TransientBackendError: nothing trustworthy was seen.
        """
        future: asyncio.Future[Seen] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(name, []).append(future)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_on())
        return await future

    async def aclose(self) -> None:
        """Give up what is under way."""
        if self._looking is not None:
            self._looking.cancel()
            with suppress(asyncio.CancelledError):
                await self._looking
        for futures in self._waiting.values():
            for future in futures:
                future.cancel()
        self._waiting = {}

    async def _look_on(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, {}
            try:
                told = await self._look(list(waiting))
            except Exception as exc:  # noqa: BLE001 - it is handed to those who asked
                _fail(waiting, exc)
            except asyncio.CancelledError:
                _fail(waiting, BackendUnknown("the adapter was closed"))
                raise
            else:
                _answer(waiting, told)


def _answer(waiting: _Waiting, told: Any) -> None:
    found: dict[str, Any] = told if is_table(told) else {}
    for name, futures in waiting.items():
        try:
            seen = read_seen(found.get(name))
        except BackendUnknown as exc:
            _fail({name: futures}, exc)
            continue
        for future in futures:
            if not future.done():
                future.set_result(seen)


def _fail(waiting: _Waiting, exc: BaseException) -> None:
    for futures in waiting.values():
        for future in futures:
            if not future.done():
                future.set_exception(exc)
