"""Asking the worker of one backend for something small, by a standalone activity."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from temporalio.client import ActivityFailureError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from temporal_fabric import names
from temporal_fabric.connection import server_error
from temporal_fabric.steering import refused

if TYPE_CHECKING:
    from temporalio.client import Client

_T = TypeVar("_T")
_TAKEN = timedelta(seconds=10)
_DONE = timedelta(seconds=40)
"""Twice as long as an answer may wait for something new."""


async def ask_backend(
    client: Client, backend: str, activity: str, asked: Any, *, kind: type[_T], about: str
) -> _T:
    """Run an activity on a backend's queue and return its answer.

    Args:
        client: A connected client.
        backend: Name of the backend instance.
        activity: Name of the activity; repeating it must do no harm.
        asked: Its argument.
        kind: Type of the answer.
        about: Names the experiment in the activity's id.

    Raises:
        RequestRejected: the worker refuses it.
        ServerUnavailable: neither the server nor a worker of the backend answers.
    """
    try:
        answer: _T = await client.execute_activity(
            activity,
            asked,
            id=f"{activity}/{about}/{secrets.token_hex(6)}",
            task_queue=names.backend_queue(backend),
            result_type=kind,
            schedule_to_start_timeout=_TAKEN,
            start_to_close_timeout=_DONE,
            schedule_to_close_timeout=2 * _DONE,
            heartbeat_timeout=_TAKEN,
        )
    except ActivityFailureError as exc:
        if isinstance(exc.cause, ApplicationError) and (exc.cause.type or "").startswith("E_"):
            raise refused(exc.cause) from exc
        raise server_error(exc, f"{backend} does not answer") from exc
    except RPCError as exc:
        raise server_error(exc, f"{backend} does not answer") from exc
    return answer
