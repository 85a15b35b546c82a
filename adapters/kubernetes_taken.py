"""Whether a pod was taken away by somebody else than the fabric: a queue, a drain, a person.

A payload that is told to end may save its state and exit with 0, and its Job may then get another
pod. Neither is an end of the attempt, and the second pod must not run it again. So an end counts
as the payload's own only where it came first, and where a queue has its hand in, only the pods
that were let in first may begin: their names stand in the Job, of which there is one.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters.kubernetes_job import FACTS, LET_IN, PAYLOAD
from temporal_fabric.adapters.kubernetes_objects import (
    annotation,
    condition,
    container_state,
    moment,
    part,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def told_at(pod: Mapping[str, Any]) -> float | None:
    """Return when somebody has told a pod to end, in Unix seconds; None where nobody has."""
    metadata = part(pod, "metadata")
    gone_by = moment(metadata.get("deletionTimestamp"))
    disruption = condition(pod, "DisruptionTarget")
    found: list[float] = []
    if gone_by is not None:
        found.append(gone_by - float(metadata.get("deletionGracePeriodSeconds") or 0))
    if disruption is not None:
        found.append(moment(disruption.get("lastTransitionTime")) or 0.0)
    return min(found, default=None)


def has_begun(pod: Mapping[str, Any]) -> bool:
    """Return whether the payload of a pod runs, or has run."""
    return bool(container_state(pod, PAYLOAD).keys() & {"running", "terminated"})


def counting(pods: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the pods that say something of the payload: not those told to end before it began."""
    return [pod for pod in pods if has_begun(pod) or told_at(pod) is None]


def let_in(job: Mapping[str, Any]) -> frozenset[str]:
    """Return the identities of the only pods whose payload may begin; empty before any may."""
    return frozenset(json.loads(annotation(job, LET_IN) or "[]"))


def is_suspended(job: Mapping[str, Any]) -> bool:
    """Return whether a Job may have no pods now."""
    return part(job, "spec").get("suspend") is True


def is_taken_back(job: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a Job was suspended after its payload may have begun.

    Also where it goes on by now: it has another pod then, or a condition that remembers.
    """
    if chosen := let_in(job):
        return is_suspended(job) or any(pod["metadata"]["uid"] not in chosen for pod in pods)
    if json.loads(annotation(job, FACTS) or "{}").get("staged"):
        return False
    remembered = (condition(job, "Suspended", value) for value in ("True", "False"))
    return is_suspended(job) or any(found is not None for found in remembered)


def leaving(job: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the pods of a Job that is taken back whose payload may still have its grace.

    Its node may never have said that it began, and says that it ended when the whole pod has.
    """
    chosen, stopped = let_in(job), is_suspended(job)
    return [
        pod
        for pod in pods
        if part(pod, "status").get("phase") not in {"Failed", "Succeeded"}
        and (pod["metadata"]["uid"] in chosen if chosen else stopped or told_at(pod) is not None)
    ]
