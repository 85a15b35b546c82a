"""The Job of one attempt as a record: read, believed, changed.

It is the one record of the attempt that all workers see. A change is made to the version that was
read, so of two that record an end one finds the other's.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters.contract import JobStatus, Phase
from temporal_fabric.adapters.kubernetes_api import MERGE_PATCH, Conflict, NotFound
from temporal_fabric.adapters.kubernetes_job import (
    END,
    ENDED,
    JOB,
    KEY,
    LET_IN,
    PAUSED,
    STOPPING,
    job_name,
)
from temporal_fabric.adapters.kubernetes_kept import dropped
from temporal_fabric.adapters.kubernetes_objects import annotation, finished, native_id, part
from temporal_fabric.adapters.kubernetes_queueing import why_no_pod
from temporal_fabric.adapters.kubernetes_states import as_record, judge, recorded
from temporal_fabric.adapters.kubernetes_taken import is_suspended, let_in
from temporal_fabric.errors import BackendUnknown, PermanentBackendError, TransientBackendError
from temporal_fabric.states import Reason

if TYPE_CHECKING:
    from temporal_fabric.adapters.contract import AttemptKey
    from temporal_fabric.adapters.kubernetes_api import KubernetesApi

_TRIES = 8

OVER = {"parallelism": 0, "activeDeadlineSeconds": 1}
"""A Job with this makes no pods, and ends."""


class JobRecord:
    """One attempt's Job and its pods at the API server. Its methods block.

    Args:
        api: The cluster.
        backend: The backend's name, with its host.
        key: The attempt.
    """

    def __init__(self, api: KubernetesApi, backend: str, key: AttemptKey) -> None:
        self._api, self._key = api, key
        self.name = job_name(backend, key)

    def create(self, body: dict[str, Any], queued: dict[str, Any] | None = None) -> dict[str, Any]:
        """Create the Job, or return the one that has its name.

        Args:
            body: The Job.
            queued: What it is instead where the cluster lets it wait before it begins.
        """
        path, strict = self._jobs, dict[str, str | None](fieldValidation="Strict")
        try:
            # A server that knows a field not would leave it out in silence, and run the rest.
            tried = self._api.ask("POST", path, query=strict | {"dryRun": "All"}, body=body)
            if lacking := dropped(body, tried):
                raise PermanentBackendError(
                    f"the API server does not know fields that this backend relies on "
                    f"[fields={', '.join(lacking)}]: a newer Kubernetes is needed"
                )
            made = queued if queued is not None and is_suspended(tried) else body
            return self._mine(self._api.ask("POST", path, query=strict, body=made))
        except Conflict:
            job = self.job()
        if job is None:
            raise TransientBackendError(f"the job has come and gone [job={self.name}]")
        return job

    def judged(self, job: dict[str, Any], pods: list[dict[str, Any]]) -> JobStatus:
        """Return the state as Kubernetes tells it."""
        try:
            status = replace(judge(job, pods), **standing(job))
            if status.phase is not Phase.RUNNING and annotation(job, STOPPING):
                stood: dict[str, Any] = {
                    "started_at": status.started_at,
                    "paused_s": status.paused_s,
                }
                return replace(stop_end(job), **stood)
        except (AttributeError, KeyError, TypeError, ValueError) as exc:
            raise BackendUnknown(f"the state of the Job means nothing: {exc!r}") from exc
        if status.phase is Phase.RUNNING and not pods:
            return replace(status, message=why_no_pod(self._api, job) or status.message)
        if status.reason == Reason.PREEMPTED and (said := why_no_pod(self._api, job)):
            return replace(status, message=f"{status.message}: {said}")
        return status

    def let_in(self, job: dict[str, Any], pods: list[dict[str, Any]]) -> bool:
        """Say whether the payload of these pods may begin; the first that are asked for may."""
        uids = sorted(pod["metadata"]["uid"] for pod in pods)
        changed = self.patch(job, {LET_IN: json.dumps(uids)}, unless=LET_IN)
        return let_in(changed) == frozenset(uids)

    def recorded(self, job: dict[str, Any]) -> JobStatus | None:
        """Return the end that is recorded with the Job, if there is one."""
        try:
            return recorded(job)
        except (AttributeError, KeyError, TypeError, ValueError) as exc:
            raise BackendUnknown(f"the recorded end means nothing: {exc!r}") from exc

    def record(self, job: dict[str, Any], status: JobStatus) -> JobStatus:
        """Record an end with the Job, unless another is recorded; return what is."""
        # A Job that has lost its pod may be given another one, unless it is over.
        over = OVER if status.phase is Phase.LOST and not finished(job) else None
        changed = self.patch(job, {END: json.dumps(as_record(status))}, spec=over)
        return self.recorded(changed) or status

    def patch(
        self,
        job: dict[str, Any],
        annotations: dict[str, str],
        spec: dict[str, Any] | None = None,
        unless: str = "",
    ) -> dict[str, Any]:
        """Change a Job and return it.

        Args:
            job: As it was read last.
            annotations: Written unless the Job's end is recorded.
            spec: Written in any case.
            unless: An annotation that also keeps the others from being written.
        """
        for _ in range(_TRIES):
            kept = self.recorded(job) is not None or (unless and annotation(job, unless))
            given = {} if kept else annotations
            if not given and spec is None:
                return job
            version = job["metadata"]["resourceVersion"]
            metadata: dict[str, Any] = {"resourceVersion": version, "annotations": given}
            if END in given:
                metadata["labels"] = {ENDED: "true"}
            body = {"metadata": metadata} | ({} if spec is None else {"spec": spec})
            try:
                path = f"{self._jobs}/{self.name}"
                return self._mine(self._api.ask("PATCH", path, body=body, content_type=MERGE_PATCH))
            except Conflict:
                job = self.again()
        raise TransientBackendError(f"the Job changes all the time [job={self.name}]")

    def delete(self, pod: dict[str, Any], grace_s: int) -> None:
        """Ask for the end of a pod, and of no other that has its name by now."""
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        path = f"/api/v1/namespaces/{self._api.namespace}/pods/{name}"
        options: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "gracePeriodSeconds": grace_s,
            "preconditions": {"uid": uid},
        }
        with suppress(NotFound, Conflict):
            self._api.ask("DELETE", path, body=options)

    def job(self) -> dict[str, Any] | None:
        """Return the Job; None where the API server says that there is none."""
        try:
            return self._mine(self._api.get(f"{self._jobs}/{self.name}"))
        except NotFound as exc:
            if self.name not in str(exc):
                raise BackendUnknown(f"something else was not found: {exc}") from exc
            return None

    def again(self) -> dict[str, Any]:
        """Return a Job that was there before.

        Raises:
            TransientBackendError: it is not there any more.
        """
        job = self.job()
        if job is None:
            raise TransientBackendError(f"the Job was deleted meanwhile [job={self.name}]")
        return job

    def _mine(self, job: dict[str, Any]) -> dict[str, Any]:
        """Return an answer that is this attempt's Job.

        Raises:
            BackendUnknown: it is something else.
        """
        try:
            metadata, spec = job["metadata"], job["spec"]
            same = job["kind"] == "Job" and metadata["name"] == self.name
            same = same and annotation(job, KEY) == str(self._key)
            whole = metadata["uid"] and metadata["namespace"] and metadata["resourceVersion"]
        except (AttributeError, KeyError, TypeError) as exc:
            raise BackendUnknown(f"this is no Job [job={self.name}]: {exc!r}") from exc
        if not same or not whole or not isinstance(spec, dict):
            raise BackendUnknown(f"this is not the Job that was asked for [job={self.name}]")
        return job

    def pods(self) -> list[dict[str, Any]]:
        """Return the pods of the Job, also where the Job is gone."""
        path = f"/api/v1/namespaces/{self._api.namespace}/pods"
        pods = self._api.rows(path, labelSelector=f"{JOB}={self.name}")
        for pod in pods:
            found = part(pod, "metadata")
            if not found.get("uid") or part(found, "labels").get(JOB) != self.name:
                raise BackendUnknown(f"these are not the pods of the job [job={self.name}]")
        return pods

    @property
    def _jobs(self) -> str:
        return f"/apis/batch/v1/namespaces/{self._api.namespace}/jobs"


def standing(job: dict[str, Any], *, at: float | None = None) -> dict[str, Any]:
    """Return whether and for how long a job stands still, as fields of its status."""
    said = json.loads(annotation(job, PAUSED) or "{}")
    since, paused_s = said.get("since"), float(said.get("before") or 0.0)
    if since is not None:
        paused_s += max((time.time() if at is None else at) - float(since), 0.0)
    return {"paused": since is not None, "paused_s": paused_s}


def stop_end(job: dict[str, Any]) -> JobStatus:
    """Return the end that was written down when the Job was stopped."""
    said = json.loads(annotation(job, STOPPING))
    said.pop("at", None)
    return replace(JobStatus(**said), phase=Phase(said["phase"]), native_id=native_id(job))
