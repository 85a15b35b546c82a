"""Why a Job has no pod yet: its controller's events, and Kueue where a queue admits it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters.kubernetes_api import NotFound
from temporal_fabric.adapters.kubernetes_objects import part, parts
from temporal_fabric.errors import PermanentBackendError, TransientBackendError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from temporal_fabric.adapters.kubernetes_api import KubernetesApi

QUEUE = "kueue.x-k8s.io/queue-name"
_VERSIONS = ("v1beta2", "v1beta1")
_WELL = {
    "QuotaReserved": "True",
    "Admitted": "True",
    "PodsReady": "True",
    "Evicted": "False",
}
"""The conditions of a workload that tell why it has no pods, as they are where it has them."""

_NOTHING_NEW = "NoReservation"
"""Why a workload is not admitted that has no quota: the other condition says more."""


def why_no_pod(api: KubernetesApi, job: Mapping[str, Any]) -> str:
    """Return what the cluster says, verbatim; empty where nothing is said or may be read."""
    said: list[str] = []
    for source in (_of_kueue, _of_events):
        with suppress(NotFound, PermanentBackendError, TransientBackendError):
            said += source(api, job)
    return "; ".join(said)


def _of_kueue(api: KubernetesApi, job: Mapping[str, Any]) -> Iterator[str]:
    """Yield the conditions of the Job's workload that are not yet as they should be."""
    if QUEUE not in part(job["metadata"], "labels"):
        return
    mine = f"kueue.x-k8s.io/job-uid={job['metadata']['uid']}"
    for version in _VERSIONS:
        path = f"/apis/kueue.x-k8s.io/{version}/namespaces/{api.namespace}/workloads"
        try:
            workloads = api.rows(path, labelSelector=mine)
        except (NotFound, TransientBackendError):
            continue
        for workload in workloads:
            for row in parts(part(workload, "status"), "conditions"):
                kind, value = row.get("type"), row.get("status")
                told = row.get("message") and row.get("reason") != _NOTHING_NEW
                if told and kind in _WELL and value != _WELL[kind]:
                    yield f"{kind} is {value}, {row.get('reason')}: {row['message']}"
        return


def _of_events(api: KubernetesApi, job: Mapping[str, Any]) -> Iterator[str]:
    """Yield the last warning about the Job: a quota, or a policy, that refuses its pods."""
    chosen = f"involvedObject.uid={job['metadata']['uid']},type=Warning"
    rows = api.rows(f"/api/v1/namespaces/{api.namespace}/events", fieldSelector=chosen)
    last = max(rows, key=lambda row: str(row.get("lastTimestamp") or ""), default=None)
    if last is not None:
        yield f"{last.get('reason')}: {last.get('message')}"
