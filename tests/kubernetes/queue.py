"""A stand-in for the controller of Kueue: it does to Jobs and Workloads what Kueue does, when told.

The API server, the Job controller and the kubelet are real, and so is what a suspension does to
a pod; only who decides is not. The resource has the names and the conditions of Kueue's, and as
little of a schema as they need.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters.kubernetes_api import MERGE_PATCH, KubernetesApi, NotFound
from temporal_fabric.adapters.kubernetes_objects import finished, part, parts
from temporal_fabric.adapters.kubernetes_options import KubernetesOptions
from temporal_fabric.adapters.kubernetes_queueing import QUEUE
from temporal_fabric.adapters.kubernetes_taken import is_suspended
from temporal_fabric.errors import TransientBackendError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAME = "gpus"
_GROUP, _VERSION = "kueue.x-k8s.io", "v1beta1"
_JOBS = "/apis/batch/v1/namespaces/default/jobs"
_WORKLOADS = f"/apis/{_GROUP}/{_VERSION}/namespaces/default/workloads"
_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_POLICIES = "/apis/admissionregistration.k8s.io/v1beta1"
_GIVEN = ("QuotaReserved", "Admitted")
_LIMIT_S = 60.0

FULL = (
    "couldn't assign flavors to pod set main: insufficient unused quota for cpu in flavor "
    "default, 1 more needed"
)
"""Kueue's words for a workload that waits for others."""

PREEMPTED = (
    "Preempted to accommodate a workload (UID: 8d3e, JobUID: 1f0c) due to prioritization in the "
    "ClusterQueue"
)
"""Kueue's words for a workload that has to go."""


class Queue:
    """Stands in for Kueue on a cluster of tests.

    Args:
        kubeconfig: Of somebody who may do everything.
    """

    def __init__(self, kubeconfig: Path) -> None:
        self._api = KubernetesApi(KubernetesOptions(str(kubeconfig)), "queue")

    def install(self) -> None:
        """Make the resource, and let every Job with a queue's name be made suspended."""
        for path, body in (
            (_DEFINITIONS, _definition()),
            (f"{_POLICIES}/mutatingadmissionpolicies", _policy()),
            (f"{_POLICIES}/mutatingadmissionpolicybindings", _binding()),
        ):
            self._api.ask("POST", path, body=body)
        wait_for(self._works)

    def _works(self) -> bool:
        try:
            self._api.rows(_WORKLOADS)
        except (NotFound, TransientBackendError):
            return False
        pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}
        body = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "probe", "labels": {QUEUE: NAME}},
            "spec": {"template": {"spec": pod}},
        }
        tried = self._api.ask("POST", _JOBS, query={"dryRun": "All"}, body=body)
        return is_suspended(tried)

    def remove(self) -> None:
        """Undo `install`."""
        for path in (
            f"{_POLICIES}/mutatingadmissionpolicybindings/{NAME}",
            f"{_POLICIES}/mutatingadmissionpolicies/{NAME}",
            f"{_DEFINITIONS}/workloads.{_GROUP}",
        ):
            self._api.ask("DELETE", path)
        self._api.close()

    def job(self, request_id: str, epoch: int) -> str:
        """Wait for the Job of an attempt, and for what holds it back; return its name."""
        job = self._job(request_id, epoch)
        name = str(job["metadata"]["name"])
        labels = {f"{_GROUP}/job-uid": job["metadata"]["uid"]}
        metadata = {"name": name, "labels": labels}
        body = {"apiVersion": f"{_GROUP}/{_VERSION}", "kind": "Workload", "metadata": metadata}
        self._api.ask("POST", _WORKLOADS, body=body)
        self.hold(name)
        return name

    def hold(self, job: str) -> None:
        """Say that there is no room."""
        self._say(job, QuotaReserved=("False", "Pending", FULL))

    def admit(self, job: str) -> None:
        """Let a Job begin, or go on."""
        said = {name: ("True", name, f"{name} in ClusterQueue {NAME}") for name in _GIVEN}
        self._say(job, **said, Evicted=("False", "QuotaReserved", f"Previously: {PREEMPTED}"))
        self._suspend(job, suspend=False)

    def evict(self, job: str) -> None:
        """Take a Job's place back, for a more urgent one; return when it has no pod."""
        self._say(job, Evicted=("True", "Preempted", PREEMPTED))
        self._suspend(job, suspend=True)
        wait_for(lambda: not part(self._api.get(f"{_JOBS}/{job}"), "status").get("active"))
        self.hold(job)

    def stop(self, request_id: str, epoch: int) -> None:
        """Suspend a Job without a word, as a person does."""
        self._suspend(self._job(request_id, epoch)["metadata"]["name"], suspend=True)

    def pods(self, job: str) -> list[dict[str, Any]]:
        """Return the pods of a Job."""
        path = "/api/v1/namespaces/default/pods"
        return self._api.rows(path, labelSelector=f"batch.kubernetes.io/job-name={job}")

    def is_over(self, job: str) -> bool:
        """Return whether a Job has ended, and has no pods."""
        return finished(self._api.get(f"{_JOBS}/{job}")) and not self.pods(job)

    def _job(self, request_id: str, epoch: int) -> dict[str, Any]:
        chosen = f"temporal-fabric/request={request_id},temporal-fabric/epoch={epoch}"
        wait_for(lambda: bool(self._api.rows(_JOBS, labelSelector=chosen)))
        (job,) = self._api.rows(_JOBS, labelSelector=chosen)
        return job

    def _suspend(self, job: str, *, suspend: bool) -> None:
        path = f"{_JOBS}/{job}"
        self._api.ask("PATCH", path, body={"spec": {"suspend": suspend}}, content_type=MERGE_PATCH)

    def _say(self, job: str, **conditions: tuple[str, str, str]) -> None:
        status = part(self._api.get(f"{_WORKLOADS}/{job}"), "status")
        kept = [row for row in parts(status, "conditions") if row["type"] not in conditions]
        rows = [
            {"type": kind, "status": value, "reason": reason, "message": message}
            for kind, (value, reason, message) in conditions.items()
        ]
        body = {"status": {"conditions": kept + rows}}
        path = f"{_WORKLOADS}/{job}/status"
        self._api.ask("PATCH", path, body=body, content_type=MERGE_PATCH)


def wait_for(done: Callable[[], bool]) -> None:
    """Return when something is so."""
    deadline = time.monotonic() + _LIMIT_S
    while not done():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.2)


def _definition() -> dict[str, Any]:
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version: dict[str, Any] = {
        "name": _VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": anything},
        "subresources": {"status": {}},
    }
    names = {"kind": "Workload", "plural": "workloads", "singular": "workload"}
    spec: dict[str, Any] = {
        "group": _GROUP,
        "scope": "Namespaced",
        "names": names,
        "versions": [version],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"workloads.{_GROUP}"},
        "spec": spec,
    }


def _policy() -> dict[str, Any]:
    """Return what Kueue's webhook does to a Job that names a queue."""
    rule = {
        "apiGroups": ["batch"],
        "apiVersions": ["v1"],
        "resources": ["jobs"],
        "operations": ["CREATE"],
    }
    suspended = "Object{spec: Object.spec{suspend: true}}"
    spec = {
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "matchConstraints": {
            "resourceRules": [rule],
            "objectSelector": {"matchExpressions": [{"key": QUEUE, "operator": "Exists"}]},
        },
        "mutations": [
            {
                "patchType": "ApplyConfiguration",
                "applyConfiguration": {"expression": suspended},
            }
        ],
    }
    return {
        "apiVersion": "admissionregistration.k8s.io/v1beta1",
        "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": NAME},
        "spec": spec,
    }


def _binding() -> dict[str, Any]:
    return {
        "apiVersion": "admissionregistration.k8s.io/v1beta1",
        "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": NAME},
        "spec": {"policyName": NAME},
    }
