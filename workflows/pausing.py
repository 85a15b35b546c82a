"""Letting a running payload stand still: the wish, and what the backend makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

from temporal_fabric import names
from temporal_fabric.states import State
from temporal_fabric.workflows import calls

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from temporal_fabric.messages import Grant
    from temporal_fabric.outcomes import AttemptResult
    from temporal_fabric.workflows.standing import Standing
    from temporal_fabric.workflows.wishes import Wishes

    Handle = (
        workflow.ActivityHandle[AttemptResult] | workflow.ChildWorkflowHandle[Any, AttemptResult]
    )
    """What carries an attempt: an activity, or the workflow of a flow."""

_REFUSED = {
    State.COLLECTING: "its payload has ended and its outputs are being collected",
    State.CANCELLING: "it is being cancelled",
}


def check_pause(standing: Standing) -> None:
    """Refuse a pause that could not take effect.

    Raises:
        ApplicationError: E_CONFLICT, with the reason.
    """
    why = _REFUSED.get(standing.state, "it has ended" if standing.state.final else "")
    grant = standing.grant
    if not why and grant is not None and not grant.pausable and standing.state in _PLACED:
        why = f"{grant.backend} cannot let a payload stand still"
    if why:
        raise ApplicationError(f"it cannot be paused: {why}", type="E_CONFLICT")


def check_priority(standing: Standing, priority: Any) -> None:
    """Refuse a priority that is none, or that could change nothing any more.

    Raises:
        ApplicationError: E_RANGE or E_CONFLICT, with the reason.
    """
    if not isinstance(priority, int) or isinstance(priority, bool) or not 1 <= priority <= 10:  # noqa: PLR2004
        raise ApplicationError(f"not a priority from 1 to 10: {priority!r}", type="E_RANGE")
    why = _REFUSED.get(standing.state, "it has ended" if standing.state.final else "")
    if why:
        raise ApplicationError(f"its priority cannot change: {why}", type="E_CONFLICT")


_PLACED = frozenset({State.PREPARING, State.RUNNING})


async def watched(
    handle: Handle,
    grant: Grant,
    standing: Standing,
    wishes: Wishes,
    until: Callable[[Callable[[], bool]], Awaitable[None]],
) -> AttemptResult:
    """Wait for the end of an attempt; let its payload stand still and go on as wished.

    Args:
        handle: The attempt.
        grant: Its placement.
        standing: Shows a pause.
        wishes: Where one is asked for.
        until: How to wait; what it raises leaves the attempt alone.

    Raises:
        ActivityError: the attempt ended by an error.
        CancelRequested: a person cancelled; the attempt is not awaited.
        DeadlinePassed: it is too late; the attempt is not awaited.
    """
    while True:
        await until(lambda: handle.done() or _differs(standing, wishes))
        if handle.done():
            return handle.result()
        if isinstance(handle, workflow.ChildWorkflowHandle):
            await _signal(handle, standing, wishes, until)
        else:
            await _act(handle, grant, standing, wishes, until)


def _differs(standing: Standing, wishes: Wishes) -> bool:
    wanted = State.PAUSED if wishes.paused else State.RUNNING
    return standing.state in {State.RUNNING, State.PAUSED} and standing.state != wanted


async def _signal(
    handle: workflow.ChildWorkflowHandle[Any, AttemptResult],
    standing: Standing,
    wishes: Wishes,
    until: Callable[[Callable[[], bool]], Awaitable[None]],
) -> None:
    """Let a flow stand still after the chunk under way, or go on; it tells when it stands."""
    paused = wishes.paused
    await handle.signal(names.SIGNAL_FLOW_PAUSE, paused)
    if not paused:
        standing.move(State.RUNNING)
        return
    await until(
        lambda: standing.state == State.PAUSED or handle.done() or wishes.paused is not paused
    )
    if standing.state != State.PAUSED and not handle.done():
        await handle.signal(names.SIGNAL_FLOW_PAUSE, wishes.paused)


async def _act(
    handle: Handle,
    grant: Grant,
    standing: Standing,
    wishes: Wishes,
    until: Callable[[Callable[[], bool]], Awaitable[None]],
) -> None:
    paused = wishes.paused
    control = calls.control(grant, names.ACTION_PAUSE if paused else names.ACTION_RESUME)
    await until(lambda: control.done() or handle.done())
    if not control.done():
        control.cancel()
        return
    try:
        answer = control.result()
    except ActivityError as exc:
        wishes.paused, wishes.refused = not paused, str(exc.cause or exc)
        return
    if answer.live and answer.paused == paused:
        standing.move(State.PAUSED if paused else State.RUNNING, at=answer.at)
    else:
        # The payload has ended meanwhile, so the attempt is about to say how.
        await until(lambda: handle.done() or wishes.paused != paused)
