"""Stopping an attempt for good: nothing of it is left, and nothing of it will come."""

from __future__ import annotations

import json
import logging
import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters.contract import JobStatus, Phase
from temporal_fabric.adapters.kubernetes_job import PAYLOAD, STOPPING
from temporal_fabric.adapters.kubernetes_objects import (
    annotation,
    container_state,
    finished,
    part,
    parts,
)
from temporal_fabric.adapters.kubernetes_record import OVER, stop_end
from temporal_fabric.adapters.kubernetes_states import as_record
from temporal_fabric.clock import now
from temporal_fabric.errors import TransientBackendError
from temporal_fabric.states import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from temporal_fabric.adapters.kubernetes_ending import Ending
    from temporal_fabric.adapters.kubernetes_record import JobRecord

log = logging.getLogger(__name__)

_STOPPED = JobStatus(Phase.ENDED, reason=Reason.SIGNAL, message="terminated by the fabric")
_PAUSE_S = 0.2
_SEEN_S = 5.0
"""How long the end of a container may take to be told."""

_PROOF_S = 60.0
"""How long one call waits for pods to go, beyond their grace."""


class Stopping:
    """Stops the Job of one attempt. Its methods block.

    Args:
        record: The attempt's Job.
        ending: What its payload wrote.
    """

    def __init__(self, record: JobRecord, ending: Ending) -> None:
        self._record, self._ending = record, ending

    def stop(self, job: dict[str, Any], end: JobStatus | None, grace_s: float) -> JobStatus:
        """Stop the Job for good, and return its end when nothing of it runs.

        Args:
            job: The Job.
            end: How it ends by this; None for an end by the fabric, unless it has its own.
            grace_s: Between SIGTERM and SIGKILL.
        """
        known = self._record.recorded(job)
        if known is None and end is None:
            known = self._own_end(job)
        if known is None and not annotation(job, STOPPING):
            # It stands also where this worker dies now.
            said = json.dumps(as_record(end or _STOPPED) | {"at": now()})
            job = self._record.patch(job, {STOPPING: said})
            known = self._record.recorded(job)
        if known is None and end is None and grace_s > 0:
            self._end_gently(grace_s)
        self._clear(job, grace_s)
        return known or self._record.record(self._record.again(), stop_end(job))

    def _end_gently(self, grace_s: float) -> None:
        """Let the keepers end the payload, and carry over what it has saved meanwhile."""
        pods = self._record.pods()
        try:
            for pod, carrying in self._ending.members(pods):
                if "running" in container_state(pod, PAYLOAD):
                    carrying.end(pod["metadata"]["name"], math.ceil(grace_s))
            until = time.monotonic() + grace_s + _SEEN_S
            while any("running" in container_state(pod, PAYLOAD) for pod in pods):
                if time.monotonic() > until:
                    break
                time.sleep(_PAUSE_S)
                pods = self._record.pods()
        except TransientBackendError as exc:
            log.info("its keeper cannot be asked to end it: %s", exc)
        self._ending.save(pods)

    def _own_end(self, job: dict[str, Any]) -> JobStatus | None:
        """Return and record the end of a job that has ended by itself; None where it runs."""
        pods = self._record.pods()
        status = self._record.judged(job, pods)
        if status.phase is Phase.RUNNING:
            return None
        try:
            return self._ending.end(job, pods, status)
        except (TransientBackendError, OSError) as exc:
            text = f"it was terminated before what it wrote could be carried over: {exc}"
            if status.exit_code == 0 and not status.reason:
                status = replace(status, phase=Phase.LOST, reason=Reason.LOST, message=text)
            return self._record.record(self._record.again(), status)

    def _clear(self, job: dict[str, Any], grace_s: float) -> None:
        """Remove the pods, and return when none is left and none will come.

        Raises:
            TransientBackendError: there is no proof yet.
        """
        until, told = time.monotonic() + grace_s + _PROOF_S, set[str]()
        while True:
            alive = [pod for pod in self._record.pods() if not _over(pod)]
            for pod in alive:
                if pod["metadata"]["uid"] not in told:
                    lives = "running" in container_state(pod, PAYLOAD)
                    # With 0 the API server would forget the pod while it still runs.
                    self._record.delete(pod, max(math.ceil(grace_s) if lives else 1, 1))
                    told.add(pod["metadata"]["uid"])
            if not finished(job) and job["spec"].get("parallelism") != 0:
                # After the pods: the Job's controller would give them another grace.
                job = self._record.patch(job, {}, spec=OVER)
            self._ending.save(alive)
            if not alive and _settled(job):
                return
            if time.monotonic() > until:
                raise TransientBackendError(f"no proof yet that all has gone: {_where(alive)}")
            time.sleep(_PAUSE_S)
            job = self._record.again()


def _settled(job: Mapping[str, Any]) -> bool:
    """Return whether the Job's controller will make no pod any more.

    It has seen that the Job is over, or the Job was never its to begin.
    """
    return finished(job) or bool(job["spec"].get("suspend") and not job["spec"].get("parallelism"))


def _over(pod: Mapping[str, Any]) -> bool:
    """Return whether every process of a pod has gone: its node's word, not only its phase."""
    status = part(pod, "status")
    states = parts(status, "containerStatuses")
    seen = all("terminated" in part(found, "state") for found in states)
    return status.get("phase") in {"Failed", "Succeeded"} and bool(states) and seen


def _where(pods: list[dict[str, Any]]) -> str:
    said = [
        f"{pod['metadata']['name']} on {pod['spec'].get('nodeName') or 'no node'}" for pod in pods
    ]
    return f"{', '.join(said) or 'the Job'} still stands [pods={len(pods)}]: is its node away?"
