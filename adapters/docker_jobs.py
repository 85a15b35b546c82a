"""Starting, seeing and ending the container of an attempt; every function blocks.

The container's name follows from the attempt, so the engine itself sees to it that there is one
at most; `temporal_fabric.adapters.docker_records` sees to it that it starts once at most.
"""

from __future__ import annotations

import hashlib
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from signal import Signals
from typing import TYPE_CHECKING

from temporal_fabric import durable
from temporal_fabric.adapters import docker_images, leftover
from temporal_fabric.adapters.container_inside import image_of
from temporal_fabric.adapters.contract import AttemptKey, JobStatus, Phase
from temporal_fabric.adapters.docker_answers import EXITED, PAUSED, RUNNING
from temporal_fabric.adapters.docker_calls import NameTaken, NotRunning
from temporal_fabric.adapters.docker_profile import LABEL, container_of
from temporal_fabric.adapters.docker_records import DockerRecord
from temporal_fabric.errors import BackendUnknown, PermanentBackendError, TransientBackendError
from temporal_fabric.states import Reason

if TYPE_CHECKING:
    from pathlib import Path

    from temporal_fabric.adapters.contract import AttemptSpec
    from temporal_fabric.adapters.docker_answers import Image, Seen
    from temporal_fabric.adapters.docker_calls import Engine
    from temporal_fabric.adapters.docker_options import DockerOptions

WALL, TERMINATED = "wall", "terminated"

_TURN_S = 10.0
_ROUNDS = 8
_LOOK_S = 0.1
_KILLED_S = 20.0
"""For the engine to see the end of what it has killed."""

_BY_SIGNAL = 128
_SIGNALS = frozenset(int(number) for number in Signals)
_WHY = {
    WALL: (Reason.TIMEOUT, "the wall limit was reached"),
    TERMINATED: (Reason.SIGNAL, "terminated by the fabric"),
}
_FORBIDDEN = JobStatus(
    Phase.LOST, reason=Reason.LOST, message="the attempt was forbidden before it started"
)


@dataclass(frozen=True, slots=True)
class Limit:
    """How long a job may run, as its container's labels tell."""

    wall_s: float | None
    grace_s: float


class DockerJobs:
    """The jobs of one backend.

    Args:
        engine: Its engine.
        options: What the host's owner allows.
        backend: The backend's instance name, part of every container's name.
        root: Folder of the backend's records on this host.
    """

    def __init__(self, engine: Engine, options: DockerOptions, backend: str, root: Path) -> None:
        self._engine, self._options, self._backend, self._root = engine, options, backend, root

    def name(self, key: AttemptKey) -> str:
        """Return the name of an attempt's container."""
        whole = hashlib.sha256(f"{self._backend}/{key}".encode()).hexdigest()
        return f"fabric-{key.request_id}-{key.epoch}-{whole[:16]}"

    def look(self, key: AttemptKey) -> tuple[JobStatus, Limit]:
        """Return the state of an attempt's job, and its limit; no effect."""
        record = self._record(key)
        seen, is_gone = self._seen(key, record)
        if seen is None or seen.started_at is None:
            return (_without(record, is_gone=is_gone), Limit(None, 0.0))
        return (_status(seen, record), _limit(seen))

    def start(self, attempt: AttemptSpec, gpus: tuple[str, ...] = ()) -> str:
        """Start an attempt's container, or find that it has started; return its id.

        Args:
            attempt: The attempt.
            gpus: Devices that are reserved for it.

        Raises:
            PermanentBackendError: it is forbidden, or the engine will never start it.
            TransientBackendError: unknown whether it has started.
        """
        key, record = attempt.key, self._record(attempt.key)
        _permitted(record)
        if (seen := self._inspect(key)) is not None and seen.started_at is not None:
            return seen.id
        image = docker_images.have(
            self._engine, image_of(attempt.request, self._options.image), self._options, attempt.say
        )
        with record.turn(_TURN_S):
            for _ in range(_ROUNDS):
                started = self._found(key, record) or self._try(attempt, record, image, gpus)
                if started:
                    return started
        raise TransientBackendError(f"others start and end the same attempt [attempt={key}]")

    def stop(self, key: AttemptKey, grace_s: float, why: str) -> JobStatus:
        """End an attempt's job: SIGTERM, grace, SIGKILL, and proof that nothing is left.

        Raises:
            TransientBackendError: there is no proof yet.
        """
        record, seen = self._record(key), self._inspect(key)
        if seen is not None and seen.live:
            record.mark_ended_by(why)
            record.mark_paused(paused=False)
            self._signal(seen, "SIGTERM")
            end = time.monotonic() + grace_s
            while (seen := self._still(key)) is not None and time.monotonic() < end:
                time.sleep(_LOOK_S)
        if seen is not None and seen.live:
            self._signal(seen, "SIGKILL")
            self._gone(key)
        seen = self._inspect(key)
        if seen is not None and seen.started_at is None and record.forbidden:
            # Its ticket is gone, so it can never start.
            self._engine.remove(seen.id)
        leftover.end(record.started if seen is None else seen.id)
        status = self.look(key)[0]
        if status.phase is Phase.RUNNING:
            raise TransientBackendError(f"the container runs again [attempt={key}]")
        return status

    def terminate(self, key: AttemptKey, grace_s: float) -> JobStatus:
        """Forbid an attempt, then end its job."""
        self._record(key).forbid()
        return self.stop(key, grace_s, TERMINATED)

    def forget(self, key: AttemptKey) -> None:
        """Remove an ended container; its end and the prohibition stay.

        Raises:
            TransientBackendError: it still runs.
        """
        record, (status, _) = self._record(key), self.look(key)
        if status.phase is Phase.RUNNING:
            raise TransientBackendError(f"the attempt still runs [attempt={key}]")
        record.keep_end(asdict(status) if status.phase is Phase.ENDED else {})
        seen = self._inspect(key)
        if seen is not None and not self._engine.remove(seen.id):
            raise TransientBackendError(f"the container cannot be removed yet [attempt={key}]")

    def pause(self, key: AttemptKey) -> JobStatus:
        """Freeze a job; one that is frozen or has ended is left as it is."""
        seen = self._inspect(key)
        if seen is not None and seen.live:
            if seen.status != PAUSED:
                with suppress(NotRunning):
                    self._engine.pause(seen.id)
            self._record(key).mark_paused(paused=True)
        return self.look(key)[0]

    def resume(self, key: AttemptKey) -> JobStatus:
        """Thaw a job."""
        seen = self._inspect(key)
        if seen is not None and seen.live:
            if seen.status == PAUSED:
                with suppress(NotRunning):
                    self._engine.unpause(seen.id)
            self._record(key).mark_paused(paused=False)
        return self.look(key)[0]

    def container(self, key: AttemptKey) -> str:
        """Return the id of a container that runs.

        Raises:
            PermanentBackendError: it stands still, has ended, or never was.
        """
        seen = self._inspect(key)
        if seen is None or seen.status != RUNNING:
            what = "there is none" if seen is None else f"it is {seen.status}"
            raise PermanentBackendError(f"the container does not run: {what}")
        return seen.id

    def running(self) -> int:
        """Return how many containers of this backend have not ended."""
        wanted = {f"{LABEL}.backend": self._backend}
        return len(self._engine.labelled(wanted, "running", "paused", "restarting"))

    def _record(self, key: AttemptKey) -> DockerRecord:
        return DockerRecord.of(self._root, key)

    def _inspect(self, key: AttemptKey) -> Seen | None:
        seen = self._engine.inspect(self.name(key))
        if seen is not None and seen.labels.get(f"{LABEL}.attempt") != str(key):
            raise BackendUnknown(
                f"a container has the attempt's name and is another's [name={self.name(key)}]"
            )
        return seen

    def _seen(self, key: AttemptKey, record: DockerRecord) -> tuple[Seen | None, bool]:
        """Return the container, and whether one that was told to start is gone.

        The note is written after a container is created and taken back before one is removed:
        one that was there before and is there after the look is of a container that is gone.
        """
        before = record.started
        seen = self._inspect(key)
        return (seen, seen is None and bool(before) and record.started == before)

    def _found(self, key: AttemptKey, record: DockerRecord) -> str:
        """Return the id of a container that has started; remove one that has not."""
        seen, is_gone = self._seen(key, record)
        if is_gone:
            raise BackendUnknown(f"the attempt's container is gone [attempt={key}]")
        if seen is not None and seen.started_at is None:
            record.revoke()
            # Only now it is certain that it will not start; it may have done so a moment ago.
            seen = self._inspect(key)
            if seen is not None and seen.started_at is None:
                record.mark_started("")
                self._engine.remove(seen.id)
                return ""
        return "" if seen is None else seen.id

    def _try(
        self, attempt: AttemptSpec, record: DockerRecord, image: Image, gpus: tuple[str, ...]
    ) -> str:
        """Create and start a container; return its id, empty where somebody was in the way."""
        ticket = record.ticket()
        # After the ticket is there: whoever forbids the attempt takes all tickets afterwards.
        _permitted(record)
        try:
            container = self._create(attempt, ticket, image, gpus)
        except NameTaken:
            return ""
        record.mark_started(container)
        try:
            self._engine.start(container)
        except PermanentBackendError:
            if not ticket.exists():
                return ""
            record.revoke()
            seen = self._inspect(attempt.key)
            if seen is not None and seen.started_at is not None:
                return seen.id
            record.mark_started("")
            if seen is not None:
                self._engine.remove(seen.id)
            raise
        return container

    def _create(
        self, attempt: AttemptSpec, ticket: Path, image: Image, devices: tuple[str, ...]
    ) -> str:
        key, limits = attempt.key, attempt.request.limits
        reference = image_of(attempt.request, self._options.image)
        config = container_of(attempt, image.id, ticket, self._options, self._engine.about())
        config["Labels"] = {
            f"{LABEL}.attempt": str(key),
            f"{LABEL}.backend": self._backend,
            f"{LABEL}.tenant": key.tenant,
            f"{LABEL}.experiment": key.request_id,
            f"{LABEL}.epoch": str(key.epoch),
            f"{LABEL}.image": reference,
            f"{LABEL}.gpus": ",".join(devices),
            f"{LABEL}.wall_s": "" if limits.wall_s is None else repr(limits.wall_s),
            f"{LABEL}.grace_s": repr(limits.grace_s),
        }
        # Images made for GPUs set this to all, and an engine may show what it says.
        config["Env"].append(f"NVIDIA_VISIBLE_DEVICES={','.join(devices) or 'void'}")
        if devices:
            wanted = {"DeviceIDs": list(devices), "Capabilities": [["gpu"]]}
            config["HostConfig"]["DeviceRequests"] = [wanted]
        lines = (f"image {reference}", f"id {image.id}", *(f"digest {d}" for d in image.digests))
        text = "".join(f"{line}\n" for line in lines)
        durable.replace(attempt.folder / "environment.txt", text.encode())
        return self._engine.create(self.name(key), config)

    def _still(self, key: AttemptKey) -> Seen | None:
        seen = self._inspect(key)
        return seen if seen is not None and seen.live else None

    def _signal(self, seen: Seen, name: str) -> None:
        with suppress(NotRunning):
            self._engine.kill(seen.id, name)
        if seen.status == PAUSED:
            # What stands still takes its signal once it goes on.
            with suppress(NotRunning):
                self._engine.unpause(seen.id)

    def _gone(self, key: AttemptKey) -> None:
        end = time.monotonic() + _KILLED_S
        while self._still(key) is not None:
            if time.monotonic() > end:
                raise TransientBackendError(f"the container is killed and runs [attempt={key}]")
            time.sleep(_LOOK_S)


def chosen_end(code: int) -> tuple[int | None, int | None]:
    """Return exit code and signal of what an engine tells as one number.

    128 and a signal's number stand for that signal: a program that exits so cannot be told apart.
    """
    number = code - _BY_SIGNAL
    return (None, number) if number in _SIGNALS else (code, None)


def _permitted(record: DockerRecord) -> None:
    if record.forbidden:
        raise PermanentBackendError("the attempt was terminated, and starts no more")


def _limit(seen: Seen) -> Limit:
    try:
        wall, grace = (seen.labels.get(f"{LABEL}.{name}", "") for name in ("wall_s", "grace_s"))
        return Limit(float(wall) if wall else None, float(grace or 0))
    except ValueError as exc:
        raise BackendUnknown(f"a container's labels were changed [id={seen.id}]") from exc


def _without(record: DockerRecord, *, is_gone: bool) -> JobStatus:
    """Return the state of an attempt without a container that ever ran."""
    if end := record.end:
        return replace(JobStatus(**end), phase=Phase(end["phase"]))
    if is_gone:
        text = "its container is gone, and nobody knows how it ended"
        return JobStatus(Phase.LOST, reason=Reason.LOST, message=text)
    return _FORBIDDEN if record.forbidden else JobStatus(Phase.ABSENT)


def _status(seen: Seen, record: DockerRecord) -> JobStatus:
    native_id = f"container {seen.id[:12]}"
    if seen.live:
        return JobStatus(
            Phase.RUNNING,
            native_id,
            started_at=seen.started_at,
            paused=seen.status == PAUSED,
            paused_s=record.paused()[1],
        )
    if seen.status != EXITED:
        raise BackendUnknown(f"the container is {seen.status} [id={seen.id}]")
    reason, message = _reason(seen, record)
    exit_code, killed_by = chosen_end(seen.exit_code)
    return JobStatus(
        Phase.ENDED,
        native_id,
        exit_code=exit_code,
        signal=killed_by,
        oom_kills=int(seen.oom_killed),
        reason=reason,
        message=message,
        started_at=seen.started_at,
        ended_at=seen.finished_at,
        paused_s=record.paused(seen.finished_at)[1],
    )


def _reason(seen: Seen, record: DockerRecord) -> tuple[str, str]:
    """Return what brought the end about, where the payload did not choose it."""
    by = record.ended_by
    if by is not None and (seen.finished_at is None or seen.finished_at >= by.at):
        return _WHY[by.why]
    if seen.error:
        return (Reason.SETUP, f"the container could not be started: {seen.error}")
    return ("", "")
