"""What the other hosts of a pool can run.

A pool gives each question to any one of its workers, and a worker knows its own backends alone.
Where none of them can run a request, the others are asked, each by the queue of its host.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn

from temporalio import activity
from temporalio.client import ActivityFailureError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from temporal_fabric import names
from temporal_fabric.activities.placement import chosen
from temporal_fabric.messages import PlanAnswer
from temporal_fabric.pollers import polling_hosts

if TYPE_CHECKING:
    from temporal_fabric.requests.models import ExecutionRequest

_TAKEN = timedelta(seconds=1)
"""A worker that is there takes it at once; `plan` has three seconds in all."""

_DONE = timedelta(seconds=1.5)
_AT_ONCE = timedelta(milliseconds=100)
_SOON = timedelta(seconds=1)
_LOOK_S = 10.0

_DELIVERIES = 60
"""How often a host is waited for that does not say. Of one that is gone the server tells for
90 s; one without standalone activities is never heard, and its own turn comes among these."""


async def with_neighbours(
    answer: PlanAnswer, request: ExecutionRequest, host: str, queue: str
) -> PlanAnswer:
    """Return an answer that also says what the other hosts of a pool can.

    Args:
        answer: What this host can.
        request: What is to run.
        host: This one.
        queue: Of the pool.

    Raises:
        RPCError: the server does not say who else takes from the queue.
    """
    others = sorted(await polling_hosts(activity.client(), queue) - {host})
    told = await asyncio.gather(*(_judged(request, other) for other in others))
    heard = [one for one in told if one is not None]
    verdicts = [*answer.verdicts, *(verdict for one in heard for verdict in one.verdicts)]
    silent = [other for other, one in zip(others, told, strict=True) if one is None]
    return replace(chosen(verdicts, answer.store), silent=silent)


def leave_to_others(answer: PlanAnswer, host: str) -> None:
    """Leave an experiment to another host that can run it, or might.

    Args:
        answer: What all hosts of its pool can.
        host: This one, where nothing can run it.

    Raises:
        ApplicationError: retryable, the server offers it to the pool again.
    """
    if answer.backend:
        raise _left(f"{answer.backend} can run it, and {host} cannot", _AT_ONCE)
    if answer.silent and activity.info().attempt <= _DELIVERIES:
        silent = ", ".join(answer.silent)
        raise _left(f"{host} cannot run it, and no answer from {silent}", _SOON)


async def wait_for_its_host(host: str) -> NoReturn:
    """Hold for a while an experiment whose host was there when it was accepted, then leave it.

    Args:
        host: This one, where nothing can run it.

    Raises:
        ApplicationError: retryable, the server offers it to the pool again.
    """
    await asyncio.sleep(_LOOK_S)
    raise _left(f"what could run it is not there now, and {host} cannot", _AT_ONCE)


def _left(why: str, again: timedelta) -> ApplicationError:
    return ApplicationError(why, type=names.FITS_ELSEWHERE, next_retry_delay=again)


async def _judged(request: ExecutionRequest, host: str) -> PlanAnswer | None:
    """Return what one host can; None where it does not say."""
    try:
        told: PlanAnswer = await activity.client().execute_activity(
            names.ACTIVITY_JUDGE,
            request.to_body(),
            id=f"judge/{request.tenant}/{request.id}/{secrets.token_hex(4)}",
            task_queue=names.host_queue(host),
            result_type=PlanAnswer,
            schedule_to_start_timeout=_TAKEN,
            start_to_close_timeout=_DONE,
            schedule_to_close_timeout=_TAKEN + _DONE,
        )
    except ActivityFailureError:
        return None
    except RPCError as exc:
        if exc.status == RPCStatusCode.UNIMPLEMENTED:
            return None  # a server without standalone activities
        raise
    return told
