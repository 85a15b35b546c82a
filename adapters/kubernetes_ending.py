"""The end of an attempt: what its payload wrote is carried over, then the end is recorded."""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters.archives import TooLarge
from temporal_fabric.adapters.contract import JobStatus, Phase
from temporal_fabric.adapters.kubernetes_carrying import Carrying
from temporal_fabric.adapters.kubernetes_job import FACTS, KEEPER, PAYLOAD
from temporal_fabric.adapters.kubernetes_objects import annotation, container_state, part, parts
from temporal_fabric.adapters.kubernetes_taken import told_at
from temporal_fabric.errors import TransientBackendError
from temporal_fabric.states import Reason

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from temporal_fabric.adapters.kubernetes_api import KubernetesApi
    from temporal_fabric.adapters.kubernetes_record import JobRecord
    from temporal_fabric.workplace import Workplace

log = logging.getLogger(__name__)


class Ending:
    """The files and the end of one attempt. Its methods block.

    Args:
        api: The cluster.
        record: The attempt's Job.
        place: The attempt's folders on this host.
    """

    def __init__(self, api: KubernetesApi, record: JobRecord, place: Workplace) -> None:
        self._api, self._record, self._place = api, record, place

    def members(self, pods: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], Carrying]]:
        """Yield each pod with its files; a gang has several."""
        for pod in pods:
            index = annotation(pod, "batch.kubernetes.io/job-completion-index")
            yield (pod, self.carrying(int(index or 0)))

    def carrying(self, member: int = 0) -> Carrying:
        """Return the files of one member."""
        return Carrying(self._api, self._place, member)

    def end(self, job: dict[str, Any], pods: list[dict[str, Any]], status: JobStatus) -> JobStatus:
        """Carry over what an ended payload wrote, record its end, and let its pods go."""
        for pod, carrying in self.members(pods):
            status = self._fetched(job, pod, carrying, status)
        status = self._record.record(job, status)
        self.release(pods)
        return status

    def _fetched(
        self, job: dict[str, Any], pod: dict[str, Any], carrying: Carrying, status: JobStatus
    ) -> JobStatus:
        """Return an end as it is after what one pod wrote was carried over."""
        name, ended = pod["metadata"]["name"], container_state(pod, PAYLOAD).get("terminated")
        if ended and "running" in container_state(pod, KEEPER):
            self._note_image(pod)
            facts = json.loads(annotation(job, FACTS) or "{}")
            limit = facts.get("output_bytes")
            try:
                carrying.fetch(name, str(ended.get("message") or ""), limit)
            except TooLarge:
                if status.exit_code == 0 and not status.reason:
                    text = f"the outputs take more than limits.output_bytes, which is {limit}"
                    status = replace(status, reason=Reason.BUDGET, message=text)
            if carrying.timed_out:
                text = f"the wall limit of {facts.get('wall_s')} s was reached"
                status = replace(status, reason=Reason.TIMEOUT, message=text)
            return status
        with suppress(TransientBackendError):
            carrying.follow(name)
        if status.exit_code == 0 and not status.reason and not carrying.carried:
            text = "it ended well, but its keeper has gone, and with it what the payload wrote"
            return replace(status, phase=Phase.LOST, reason=Reason.LOST, message=text)
        return status

    def _note_image(self, pod: dict[str, Any]) -> None:
        """Write down which image it was, by its digest: a tag may mean another one tomorrow."""
        for found in parts(part(pod, "status"), "containerStatuses"):
            if found.get("name") == PAYLOAD:
                text = f"image {found.get('image')}\nid {found.get('imageID')}\n"
                (self._place.folder / "environment.txt").write_text(text)

    def save(self, pods: list[dict[str, Any]]) -> None:
        """Carry over what a stopped payload wrote, as far as its pod still allows it."""
        for pod, carrying in self.members(pods):
            name, ended = pod["metadata"]["name"], part(container_state(pod, PAYLOAD), "terminated")
            with _as_far_as_it_goes(name):
                carrying.follow(name)
                if ended and "running" in container_state(pod, KEEPER):
                    carrying.fetch(name, str(ended.get("message") or ""), None)
                    carrying.release(name)

    def save_parting(self, pods: list[dict[str, Any]]) -> None:
        """Carry over what a payload has saved whose pod somebody else takes away."""
        for pod, carrying in self.members([pod for pod in pods if told_at(pod) is not None]):
            name = pod["metadata"]["name"]
            with _as_far_as_it_goes(name):
                if carrying.has_parted(name):
                    carrying.fetch(name, "", None)
                    carrying.release(name)

    def release(self, pods: list[dict[str, Any]]) -> None:
        """Let pods end whose files are here."""
        for pod, carrying in self.members(pods):
            if "running" in container_state(pod, KEEPER):
                # Otherwise the keeper goes after its time, or with the pod.
                with suppress(TransientBackendError):
                    carrying.release(pod["metadata"]["name"])


@contextmanager
def _as_far_as_it_goes(pod: str) -> Generator[None]:
    try:
        yield
    except (TransientBackendError, OSError) as exc:
        log.info("of %s, which ends, nothing more is carried over: %s", pod, exc)
