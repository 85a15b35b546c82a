"""Asking a running experiment for something: an update that it grants or refuses at once."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from temporalio.client import (
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
    WorkflowUpdateStage,
)
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from temporal_fabric.errors import Problem, RequestRejected, ServerUnavailable

if TYPE_CHECKING:
    from temporalio.client import WorkflowHandle, WorkflowUpdateHandle

_TAKEN = timedelta(seconds=15)


async def ask(
    workflow: WorkflowHandle[Any, Any], update: str, *args: Any, wait_s: float = 30.0
) -> dict[str, Any] | None:
    """Send an update and return its answer.

    Args:
        workflow: The experiment.
        update: Which update.
        args: Its arguments.
        wait_s: How long to wait for it to take effect once a worker has taken it.

    Returns:
        What the `status` query answers, or None where it was taken but has no effect yet: it
        will, as soon as the backend answers.

    Raises:
        RequestRejected: the experiment refuses, or it has ended (E_CONFLICT).
        ServerUnavailable: no worker took it.
        RPCError: NOT_FOUND; there is no such experiment.
    """
    try:
        # One of the SDK's overloads leaves a type open.
        handle: WorkflowUpdateHandle[Any] = await workflow.start_update(  # pyright: ignore[reportUnknownMemberType]
            update, args=args, wait_for_stage=WorkflowUpdateStage.ACCEPTED, rpc_timeout=_TAKEN
        )
    except WorkflowUpdateRPCTimeoutOrCancelledError as exc:
        raise ServerUnavailable(
            f"no worker took it in {_TAKEN.total_seconds():.0f} s [{update} {workflow.id}]: "
            "start one with 'temporal-fabric worker', then ask again"
        ) from exc
    except WorkflowUpdateFailedError as exc:
        raise refused(exc.cause or exc) from exc
    except RPCError as exc:
        raise await _closed(workflow, exc) from exc
    try:
        answer: dict[str, Any] = await handle.result(rpc_timeout=timedelta(seconds=wait_s))
    except WorkflowUpdateRPCTimeoutOrCancelledError:
        return None
    except WorkflowUpdateFailedError as exc:
        raise refused(exc.cause or exc) from exc
    except RPCError as exc:
        raise await _closed(workflow, exc) from exc
    return answer


def refused(cause: BaseException) -> RequestRejected:
    """Return a refusal by the experiment as every other refusal."""
    code = cause.type if isinstance(cause, ApplicationError) else None
    message = cause.message if isinstance(cause, ApplicationError) else str(cause)
    return RequestRejected([Problem(code or "E_CONFLICT", "/id", message)])


async def _closed(workflow: WorkflowHandle[Any, Any], error: RPCError) -> Exception:
    """Tell an experiment that has ended from one that never was, and from a silent server."""
    if error.status != RPCStatusCode.NOT_FOUND:
        return ServerUnavailable(f"the server did not answer: {error}")
    try:
        await workflow.describe()
    except RPCError as missing:
        return missing
    return refused(ApplicationError("it has ended", type="E_CONFLICT"))
