"""Giving an experiment back to its pool, where this host is drained and another one is not.

A drained host goes on to take from its pool: it may be the only one, and then it is the one
that can say what an experiment waits for. So it looks who else takes from the pool, and lets
go of what it cannot place. The server gives that to any of them, at times to this one again.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from temporalio import activity
from temporalio.exceptions import ApplicationError

from temporal_fabric import names
from temporal_fabric.pollers import polling_hosts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from temporal_fabric.activities.desk import Desk

_LOOK_S = 2.0
_AT_ONCE = 4
"""Deliveries after which it is held for longer and longer: the others may be drained as well."""

_LONGEST_S = 30.0
_AGAIN = timedelta(milliseconds=100)


async def hand_back(desk: Desk, backends: Sequence[str], *, moves: bool = False) -> NoReturn:
    """Wait until every backend is drained here and another host takes from the pool, then leave.

    Args:
        desk: Whose backends they are.
        backends: Those that fit.
        moves: Whether it was asked for here, and not of the pool, and may go there all the same.

    Raises:
        ApplicationError: retryable, the server offers the experiment to the pool again; or not,
            where that is for its workflow to do.
    """
    info = activity.info()
    pools = [names.pool_queue(pool) for pool in desk.settings.pools]
    queues = pools if moves else [info.task_queue]
    delivered, held_s = info.attempt, 0.0
    if delivered > _AT_ONCE:
        held_s = min(2.0 ** (delivered - _AT_ONCE), _LONGEST_S)
    await asyncio.sleep(held_s)
    while True:
        if await _better_elsewhere(desk, backends, queues):
            text = f"{', '.join(backends)} is drained, another host takes from {queues[0]}"
            again = None if moves else _AGAIN
            raise ApplicationError(
                text, type=names.DRAINED_HERE, non_retryable=moves, next_retry_delay=again
            )
        await asyncio.sleep(_LOOK_S)


async def _better_elsewhere(desk: Desk, backends: Sequence[str], queues: Sequence[str]) -> bool:
    if not all(desk.capacity(backend).drained for backend in backends):
        return False
    for queue in queues:
        look = partial(polling_hosts, activity.client(), queue)
        if await desk.neighbours(queue, look):
            return True
    return False
