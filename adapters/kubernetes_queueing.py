"""Why a Job has no pod yet: its controller's events, and Kueue where a queue admits it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters.kubernetes_api import NotFound
from temporal_fabric.adapters.kubernetes_objects import part, parts
from temporal_fabric.errors import PermanentBackendError, TransientBackendError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from temporal_fabric.adapters.kubernetes_api import KubernetesApi

QUEUE = "kueue.x-k8s.io/queue-name"
_VERSIONS = ("v1beta2", "v1beta1")
_TOLD = ("Evicted", "Preempted", "Admitted", "QuotaReserved", "PodsReady")


def why_no_pod(api: KubernetesApi, job: Mapping[str, Any]) -> str:
    """Return what the cluster says, verbatim; empty where nothing is said or may be read."""
    try:
        said = [*_of_kueue(api, job), *_of_events(api, job)]
    except (NotFound, PermanentBackendError, TransientBackendError):
        return ""
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
                if kind in _TOLD and row.get("message"):
                    yield f"{kind} is {value}, {row.get('reason')}: {row['message']}"
        return


def _of_events(api: KubernetesApi, job: Mapping[str, Any]) -> Iterator[str]:
    """Yield the last warning about the Job: a quota, or a policy, that refuses its pods."""
    chosen = f"involvedObject.uid={job['metadata']['uid']},type=Warning"
    rows = api.rows(f"/api/v1/namespaces/{api.namespace}/events", fieldSelector=chosen)
    last = max(rows, key=lambda row: str(row.get("lastTimestamp") or ""), default=None)
    if last is not None:
        yield f"{last.get('reason')}: {last.get('message')}"
