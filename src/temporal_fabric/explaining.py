"""Why an experiment stands where it stands, and the one change that would move it now."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from temporal_fabric.messages import BackendVerdict
from temporal_fabric.states import Reason, State
from temporal_fabric.verdicts import drained_change, drained_text

if TYPE_CHECKING:
    from temporal_fabric.messages import PlanAnswer
    from temporal_fabric.status import ExperimentStatus


@dataclass(frozen=True, slots=True)
class Explanation:
    """What `explain` answers."""

    tenant: str
    request_id: str
    state: str
    reason: str
    """The reason that decides: ``WAITING_FOR_CAPACITY``, ``DEPENDENCY``, ``PAUSED``, ..."""

    why: str
    """The same in one sentence."""

    change: str = ""
    """The one change that would move it now; empty where only time does."""

    ahead: int | None = None
    """How many wait before it; None where it does not wait for a place."""

    verdicts: list[BackendVerdict] = field(default_factory=list[BackendVerdict])
    """What each backend says of the request; empty once it has ended."""


def explain(status: ExperimentStatus, plan: PlanAnswer | None) -> Explanation:
    """Return why an experiment stands where it stands.

    Args:
        status: Where it stands.
        plan: What the backends say of the request; None where none answers or it has ended.
    """
    reason, why, change = _cause(status, plan)
    ahead = status.live.get("ahead") if status.state == State.QUEUED else None
    verdicts = plan.verdicts if plan is not None else []
    names = (status.tenant, status.request_id, status.state)
    return Explanation(*names, reason, why, change, ahead, verdicts)


def _cause(status: ExperimentStatus, plan: PlanAnswer | None) -> tuple[str, str, str]:
    state, reason = State(status.state), status.reason
    if state.final:
        return (reason, status.message or f"it ended as {state}", "")
    if state in {State.PAUSED, State.HELD}:
        return _waits_for_a_person(status)
    if reason == Reason.BACKEND_DOWN and status.backend:
        why = f"the worker of {status.backend} is away"
        return (reason, why, f"start the worker of {status.backend}")
    if state == State.RETRYING:
        return (reason, f"the last attempt ended with {reason}; the next one follows", "")
    if state == State.QUEUED:
        return _queued(status, plan)
    where = f" on {status.backend}" if status.backend else ""
    return (reason, f"it is {state}{where} since {status.since}", "")


def _waits_for_a_person(status: ExperimentStatus) -> tuple[str, str, str]:
    if status.state == State.PAUSED:
        return ("PAUSED", "a person has paused it", f"temporal-fabric resume {status.request_id}")
    why = status.question.get("text") or "a person is asked, and no worker tells what"
    offered = (
        "|".join(choice["answer"] for choice in status.question.get("choices", ())) or "ANSWER"
    )
    return (status.reason, why, f"temporal-fabric resolve {status.request_id} --as {offered}")


def _queued(status: ExperimentStatus, plan: PlanAnswer | None) -> tuple[str, str, str]:
    live = status.live
    if live.get("reason") == Reason.DEPENDENCY:
        other = live.get("waits_for", "another experiment")
        return (Reason.DEPENDENCY, f"it needs an output of {other}, which has not ended", "")
    if plan is None:
        return (Reason.BACKEND_DOWN, "no worker of its pool answers", "temporal-fabric worker")
    if not plan.backend:
        return ("NO_MATCHING_BACKEND", "no backend can run it as things are", plan.nearest_change)
    return _waiting(status, plan)


def _waiting(status: ExperimentStatus, plan: PlanAnswer) -> tuple[str, str, str]:
    """Return why a request that some backend can run has no place yet."""
    live = status.live
    if change := drained_change(plan):
        drained = {v.backend: v.drained for v in plan.verdicts if v.ok}
        why = f"every backend that can run it is drained: {drained_text(drained)}"
        return (Reason.DRAINED, why, change)
    if live.get("reason") == Reason.WAITING_FOR_CAPACITY:
        backend, ahead = live.get("backend", plan.backend), int(live.get("ahead", 0))
        taken = next((v for v in plan.verdicts if v.backend == backend), None)
        places = f"no place of {backend} is free"
        if taken is not None and taken.slots is not None:
            places += f" ({taken.used} of {taken.slots} taken)"
        if live.get("gpus"):
            places = f"GPUs needed of {backend}: {live['gpus']}, and fewer are free"
        if not ahead:
            return (live["reason"], f"{places}; it is the next", "")
        why = f"{places}; before it wait {ahead}"
        return (live["reason"], why, f"temporal-fabric reprioritise {status.request_id} 10")
    return (status.reason, "it is about to be placed", "")
