"""What a Job and its pods say of an attempt: one table of states, as pure functions.

| what Kubernetes says | phase | reason |
|---|---|---|
| no pod yet, or a pod that waits | RUNNING | the waiting is in the message, verbatim |
| the payload's container runs | RUNNING | |
| ... has exited | ENDED | none: its exit code is its end |
| ... ``OOMKilled``, also with exit code 0 | ENDED | OOM |
| ... could not be started (``StartError``, ...) | ENDED | SETUP |
| ... was ended by the keeper for its wall limit | ENDED | TIMEOUT |
| pod ``DeadlineExceeded`` | ENDED | TIMEOUT |
| pod ``Evicted`` for what it wrote itself | ENDED | BUDGET |
| pod ``Evicted``, drained, its node lost or shut down | LOST | LOST |
| pod preempted by another, Job suspended by a queue after it began | LOST | PREEMPTED |
| pod told to end by anybody before its payload had ended well | LOST | LOST |
| the Job's pod is gone without an end | LOST | LOST |
| stopped by the fabric | ENDED | SIGNAL |
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters.contract import JobStatus, Phase
from temporal_fabric.adapters.kubernetes_job import END, PAYLOAD, STAGE, STOPPING
from temporal_fabric.adapters.kubernetes_objects import (
    annotation,
    condition,
    container_state,
    moment,
    native_id,
    part,
)
from temporal_fabric.adapters.kubernetes_taken import counting, is_taken_back, leaving, told_at
from temporal_fabric.shapes import is_table
from temporal_fabric.states import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_NOT_STARTED = {"ContainerCannotRun", "StartError", "CreateContainerError"}
_DISRUPTED = {"PreemptionByScheduler": Reason.PREEMPTED}
_OWN_STORAGE = ("exceeds the total limit", "exceeds its local ephemeral", "exceeds the limit")
_TAKEN_BACK = JobStatus(
    Phase.LOST, reason=Reason.PREEMPTED, message="its Job was suspended, and its place taken back"
)
_STUCK = {
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImageInspectError",
    "ImagePullBackOff",
    "InvalidImageName",
    "RegistryUnavailable",
    "RunContainerError",
}
"""Waiting that ends by itself only where somebody mends something."""


def recorded(job: Mapping[str, Any]) -> JobStatus | None:
    """Return the end that was recorded with a Job.

    Raises:
        ValueError: what is recorded is no end.
    """
    text = annotation(job, END)
    if not text:
        return None
    try:
        found = JobStatus(**json.loads(text))
        return replace(found, phase=Phase(found.phase), native_id=native_id(job))
    except TypeError as exc:
        raise ValueError(f"this is no end: {text[:80]}") from exc


def as_record(status: JobStatus) -> dict[str, Any]:
    """Return an end as it is recorded: what is not at its default."""
    empty = asdict(JobStatus(status.phase))
    found = {name: value for name, value in asdict(status).items() if value != empty[name]}
    return {"phase": str(status.phase), **found} | {"native_id": ""}


def judge(job: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> JobStatus:
    """Return the state of an attempt whose end is not recorded.

    Args:
        job: Its Job.
        pods: The Job's pods.
    """
    counted, begun = counting(pods), _first_start(pods)
    back, said = is_taken_back(job, pods), "" if begun else "; ".join(waiting(job, counted))
    end = _end(job, counted)
    if back and (end is None or end.phase is Phase.LOST):
        end = None if end is None and leaving(job, pods) else _TAKEN_BACK
        said = _TAKEN_BACK.message
    if end is not None:
        return replace(end, native_id=native_id(job), started_at=begun)
    if annotation(job, STOPPING):
        said = "it is being stopped"
    return JobStatus(Phase.RUNNING, native_id(job), message=said, started_at=begun)


def _end(job: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> JobStatus | None:
    """Return how an attempt ended by what its pods say; None as long as they say nothing."""
    ends = [status for pod in pods if (status := pod_end(pod)) is not None]
    bad = [status for status in ends if not _well(status)]
    if bad or len(ends) >= int(job["spec"].get("completions") or 1):
        # Of a gang the member tells that ended badly first, and by itself.
        return min(bad or ends, key=lambda end: (end.ended_at or 0.0, end.phase is Phase.LOST))
    if not pods and (over := condition(job, "Failed") or condition(job, "Complete")):
        said = f"{over.get('reason')}: {over.get('message')}"
        message = f"its pod is gone, and with it how it ended; its Job says {said}"
        return JobStatus(Phase.LOST, reason=Reason.LOST, message=message)
    return None


def _first_start(pods: Sequence[Mapping[str, Any]]) -> float | None:
    """Return when the first payload of some pods began, in Unix seconds; None where none has."""
    return min((at for pod in pods if (at := started_at(pod)) is not None), default=None)


def pod_end(pod: Mapping[str, Any]) -> JobStatus | None:  # noqa: PLR0911 - a table
    """Return how a pod's payload ended; None as long as it has not."""
    status = part(pod, "status")
    reason, said = str(status.get("reason") or ""), str(status.get("message") or "")
    state = container_state(pod, PAYLOAD).get("terminated")
    over = status.get("phase") in {"Failed", "Succeeded"}
    found = _of_container(state) if is_table(state) else None
    if reason == "DeadlineExceeded":
        found = found or JobStatus(Phase.ENDED)
        return replace(found, reason=Reason.TIMEOUT, message=f"{reason}: {said}")
    if reason == "Evicted" and any(words in said for words in _OWN_STORAGE):
        found = found or JobStatus(Phase.ENDED)
        return replace(found, reason=Reason.BUDGET, message=f"{reason}: {said}")
    if (over or found is not None) and (taken := _taken(pod, found)) is not None:
        return taken
    if found is not None:
        return found
    staging = container_state(pod, STAGE).get("terminated")
    if is_table(staging) and staging.get("exitCode"):
        text = f"its files could not be brought in: {staging.get('reason')}, {_said(staging)}"
        return JobStatus(Phase.ENDED, reason=Reason.SETUP, message=text)
    if over:
        message = f"its pod is {status.get('phase')}: {reason or 'no reason given'} {said}".strip()
        return JobStatus(Phase.LOST, reason=Reason.LOST, message=message)
    return None


def _taken(pod: Mapping[str, Any], found: JobStatus | None) -> JobStatus | None:
    """Return the end of a pod that was told to end, unless its payload had ended well by then."""
    told, status = told_at(pod), part(pod, "status")
    if told is None or (found is not None and _well(found) and (found.ended_at or told) < told):
        return None
    disruption = condition(pod, "DisruptionTarget")
    if disruption is None:
        ended = None if found is None else found.ended_at
        text = "its pod was deleted by somebody else than the fabric"
        return JobStatus(Phase.LOST, reason=Reason.LOST, message=text, ended_at=ended)
    why = str(disruption.get("reason"))
    text = f"{status.get('reason') or why}: {status.get('message') or disruption.get('message')}"
    return JobStatus(Phase.LOST, reason=_DISRUPTED.get(why, Reason.LOST), message=text)


def _of_container(state: Mapping[str, Any]) -> JobStatus:
    reason, code = str(state.get("reason") or ""), int(state["exitCode"])
    end = JobStatus(
        Phase.ENDED,
        exit_code=code,
        started_at=moment(state.get("startedAt")),
        ended_at=moment(state.get("finishedAt")),
    )
    if reason == "OOMKilled":
        return replace(end, oom_kills=1, reason=Reason.OOM, message=f"{reason}, exit code {code}")
    if reason in _NOT_STARTED:
        return replace(
            end, exit_code=None, reason=Reason.SETUP, message=f"{reason}: {_said(state)}"
        )
    if reason == "ContainerStatusUnknown":
        text = f"{reason}: {_said(state)}"
        return replace(end, phase=Phase.LOST, exit_code=None, reason=Reason.LOST, message=text)
    return end


def _well(status: JobStatus) -> bool:
    return status.exit_code == 0 and not status.reason


def _said(state: Mapping[str, Any]) -> str:
    return str(state.get("message") or f"exit code {state.get('exitCode')}").strip()


def started_at(pod: Mapping[str, Any]) -> float | None:
    """Return when a pod's payload began, in Unix seconds; None where it has not."""
    state = container_state(pod, PAYLOAD)
    found = part(state, "running") or part(state, "terminated")
    return moment(found.get("startedAt"))


def waiting(job: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield why an attempt has not begun, in Kubernetes' own words."""
    suspended = condition(job, "Suspended")
    if not pods and suspended is not None:
        yield f"{suspended.get('reason')}: {suspended.get('message')}"
    for pod in pods:
        scheduled = condition(pod, "PodScheduled", "False")
        if scheduled is not None:
            yield f"{scheduled.get('reason')}: {scheduled.get('message')}"
        for name in (STAGE, PAYLOAD):
            state = container_state(pod, name).get("waiting")
            if is_table(state) and state.get("reason") not in {None, "PodInitializing"}:
                yield f"{state['reason']}: {state.get('message') or 'the pod is made ready'}"
                break


def stuck(pod: Mapping[str, Any]) -> str:
    """Return why a pod does not come up unless somebody mends something; empty where it may."""
    for name in (STAGE, PAYLOAD):
        state = container_state(pod, name).get("waiting")
        if is_table(state) and state.get("reason") in _STUCK:
            return f"{state['reason']}: {state.get('message') or ''}"
    return ""
