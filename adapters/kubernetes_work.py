"""What is done to the Job of one attempt. Every step can be repeated, raced and given up."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from temporal_fabric import durable
from temporal_fabric.adapters.contract import JobHandle, JobStatus, Phase
from temporal_fabric.adapters.kubernetes_carrying import write_brought, write_source
from temporal_fabric.adapters.kubernetes_commands import PodCommands, left_behind
from temporal_fabric.adapters.kubernetes_ending import Ending
from temporal_fabric.adapters.kubernetes_job import (
    FACTS,
    KEEPER,
    PAUSED,
    STAGE,
    brings,
    job_body,
    python_call,
    tombstone_body,
)
from temporal_fabric.adapters.kubernetes_objects import (
    annotation,
    container_state,
    finished,
    moment,
    native_id,
)
from temporal_fabric.adapters.kubernetes_record import JobRecord, standing
from temporal_fabric.adapters.kubernetes_states import as_record, stuck
from temporal_fabric.adapters.kubernetes_stopping import Stopping
from temporal_fabric.adapters.kubernetes_taken import told_at
from temporal_fabric.errors import PermanentBackendError, TransientBackendError
from temporal_fabric.states import Reason

if TYPE_CHECKING:
    from temporal_fabric.adapters.contract import AttemptKey, AttemptSpec, CommandPiece
    from temporal_fabric.adapters.kubernetes_api import KubernetesApi
    from temporal_fabric.adapters.kubernetes_options import KubernetesOptions
    from temporal_fabric.workplace import Workplace

log = logging.getLogger(__name__)

_SUBMITTED = ".submitted"
"""File in the attempt's folder: its Job has existed, so one that is not there was deleted."""

_FOREVER = {"InvalidImageName", "ErrImageNeverPull"}
_PAUSE_S, _SEEN_S = 0.2, 10.0
"""How often it is looked, and how long it may take the cluster to tell, that a payload began."""

_FORBIDDEN = JobStatus(
    Phase.LOST, reason=Reason.LOST, message="the attempt was forbidden before it started"
)
_DELETED = JobStatus(
    Phase.LOST, reason=Reason.LOST, message="its Job was deleted by somebody else than the fabric"
)
_ELSEWHERE = "it ended well, but what it wrote was carried to another host's folder"


class JobWork:
    """One attempt's Job. Its methods block.

    Args:
        api: The cluster.
        options: The backend's.
        backend: The backend's name, with its host.
        key: The attempt.
        place: The attempt's folders.
    """

    def __init__(
        self,
        api: KubernetesApi,
        options: KubernetesOptions,
        backend: str,
        key: AttemptKey,
        place: Workplace,
    ) -> None:
        self._api, self._options, self._backend = api, options, backend
        self._key, self.place = key, place
        self._record = JobRecord(api, backend, key)
        self._ending = Ending(api, self._record, place)
        self._stopping = Stopping(self._record, self._ending)

    def start(self, attempt: AttemptSpec) -> JobHandle:
        """See `Adapter.submit`."""
        python = attempt.request.payload.python
        if python is not None and python.source:
            write_source(self.place, python.entry_point, python.source)
        write_brought(self.place, brings(attempt), python_call(attempt))
        plain, queued = (
            job_body(self._backend, attempt, self._options, queued=queued)
            for queued in (bool(self._options.queue), True)
        )
        job = self._record.create(plain, queued)
        durable.replace(self.place.folder / _SUBMITTED, b"")
        return JobHandle(self._key, native_id(job))

    def look(self) -> JobStatus:
        """See `Adapter.find`: an end is told once what the payload wrote is here."""
        job = self._record.job()
        if job is None:
            return self._absent()
        status = self._record.recorded(job)
        if status is not None:
            return status
        status = self._record.judged(job, self._record.pods())
        if status.phase is Phase.RUNNING:
            return status
        message = "it has ended; what it wrote is not carried over yet"
        return JobStatus(
            Phase.RUNNING, native_id(job), message=message, started_at=status.started_at
        )

    def advance(self) -> JobStatus:
        """Do what is to be done for the attempt now, and return its state: a step of `wait`."""
        job = self._record.job()
        if job is None:
            return self._absent()
        status = self._record.recorded(job)
        if status is not None:
            well = status.exit_code == 0 and not status.reason
            if well and not self._ending.carrying().carried:
                return replace(status, phase=Phase.LOST, reason=Reason.LOST, message=_ELSEWHERE)
            return status
        pods = self._record.pods()
        status = self._record.judged(job, pods)
        if status.phase is not Phase.RUNNING:
            return self._ending.end(job, pods, status)
        self._stage(job, pods)
        self._follow(pods)
        self._ending.save_parting(pods)
        hopeless = self._hopeless(pods)
        return self._stopping.stop(job, hopeless, 0.0) if hopeless else status

    def follow(self) -> None:
        """Bring the attempt's logs up to date; one that has no pod has no more of them."""
        for pod, carrying in self._ending.members(self._record.pods()):
            if not carrying.carried:
                carrying.follow(pod["metadata"]["name"])

    def stop(self, grace_s: float) -> JobStatus:
        """See `Adapter.terminate`."""
        job = self._record.job()
        if job is None:
            end = _DELETED if self._submitted else _FORBIDDEN
            body = tombstone_body(self._backend, self._key, as_record(end), self._options)
            job = self._record.create(body)
        return self._stopping.stop(job, None, grace_s)

    def pause(self) -> JobStatus:
        """See `Pausing.pause`."""
        job, pods = self._running()
        if job is None:
            return self.look()
        for pod, carrying in self._ending.members(pods):
            carrying.pause(pod["metadata"]["name"])
        if standing(job)["paused"]:
            return self.look()
        said = {"since": time.time(), "before": standing(job)["paused_s"]}
        return self._marked(job, pods, said)

    def resume(self) -> JobStatus:
        """See `Pausing.resume`."""
        job, pods = self._running()
        if job is None:
            return self.look()
        for pod, carrying in self._ending.members(pods):
            carrying.resume(pod["metadata"]["name"])
        return self._marked(job, pods, {"before": standing(job)["paused_s"]})

    def commands(self) -> PodCommands:
        """Return the commands of the pod whose payload runs; of a gang, of its first member.

        Raises:
            PermanentBackendError: the payload has ended, or stands still.
        """
        job, pods = self._running()
        if job is None:
            raise PermanentBackendError(f"the payload has ended [job={self._record.name}]")
        if standing(job)["paused"]:
            raise PermanentBackendError(f"the payload stands still [job={self._record.name}]")
        return PodCommands(self._api, pods[0]["metadata"]["name"])

    def command_piece(self, name: str, offsets: tuple[int, int]) -> CommandPiece:
        """See `Executing.fetch`; returns what is new now."""
        pods = self._record.pods()
        if self._ending.carrying().carried or not pods:
            return left_behind(self._ending.carrying().command(name), offsets)
        return PodCommands(self._api, pods[0]["metadata"]["name"]).fetch(name, offsets)

    def end_command(self, name: str) -> None:
        """See `Executing.end`; with its pod it has ended already."""
        for pod in self._record.pods()[:1]:
            if "running" in container_state(pod, KEEPER):
                PodCommands(self._api, pod["metadata"]["name"]).end(name)

    def _running(self) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        """Return a Job whose payload has begun and not ended, with its pods; else none.

        Raises:
            TransientBackendError: it has not begun.
        """
        until = time.monotonic() + _SEEN_S
        while True:
            job = self._record.job()
            if job is None or self._record.recorded(job) is not None:
                return (None, [])
            pods = self._record.pods()
            status = self._record.judged(job, pods)
            if status.phase is not Phase.RUNNING:
                return (None, [])
            if status.started_at is not None:
                return (job, pods)
            if time.monotonic() > until:
                raise TransientBackendError(f"it has not begun [job={self._record.name}]")
            time.sleep(_PAUSE_S)

    def _marked(
        self, job: dict[str, Any], pods: list[dict[str, Any]], said: dict[str, float]
    ) -> JobStatus:
        changed = self._record.patch(job, {PAUSED: json.dumps(said)})
        return self._record.judged(changed, pods)

    def forget(self) -> None:
        """See `Adapter.forget`."""
        job = self._record.job()
        if job is None:
            return
        if self._record.recorded(job) is None and not finished(job):
            raise TransientBackendError(
                f"the job still runs [job={self._record.name}]: terminate it first"
            )
        pods = self._record.pods()
        if self._record.recorded(job) is None:
            self._record.record(job, self._record.judged(job, pods))
        for pod in pods:
            self._record.delete(pod, 1)

    def _stage(self, job: dict[str, Any], pods: list[dict[str, Any]]) -> None:
        facts = json.loads(annotation(job, FACTS) or "{}")
        pods = [pod for pod in pods if told_at(pod) is None]
        waiting = [pod for pod in pods if "running" in container_state(pod, STAGE)]
        # A gang begins together, or not at all.
        if facts.get("staged") and waiting and len(pods) >= int(facts.get("members") or 1):
            ready = all(
                container_state(pod, STAGE).keys() & {"running", "terminated"} for pod in pods
            )
            if ready and self._record.let_in(job, pods):
                for pod, carrying in self._ending.members(waiting):
                    carrying.stage(pod["metadata"]["name"], pod["metadata"]["uid"])

    def _follow(self, pods: list[dict[str, Any]]) -> None:
        for pod, carrying in self._ending.members(pods):
            try:
                carrying.follow(pod["metadata"]["name"])
            except TransientBackendError as exc:
                # Its node is away, perhaps: nothing is lost, and the payload may go on.
                log.info("the log cannot be followed now: %s", exc)

    def _hopeless(self, pods: list[dict[str, Any]]) -> JobStatus | None:
        """Return the end of an attempt whose pod has been stuck for too long."""
        for pod in pods:
            why, since = stuck(pod), moment(pod["metadata"].get("creationTimestamp"))
            patience = self._options.start_s
            if why.partition(":")[0] in _FOREVER:
                patience = min(patience, 10.0)
            if why and since is not None and time.time() - since > patience:
                return JobStatus(Phase.ENDED, reason=Reason.SETUP, message=why)
        return None

    def _absent(self) -> JobStatus:
        return _DELETED if self._submitted else JobStatus(Phase.ABSENT)

    @property
    def _submitted(self) -> bool:
        return (self.place.folder / _SUBMITTED).exists()
