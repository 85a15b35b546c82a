"""Adapters of six plain methods, and what makes them safe to run experiments on.

The simplest form of an adapter is a class with `BackendAdapter`'s methods, called from threads.
`SixMethods` puts round it what the contract promises beyond them: a record that is durable
before a job is started and after it has been, so that no attempt runs twice and a new worker
finds what runs; wall limits; ends that never change; output in the attempt's folder.

What six methods cannot say stays weaker than in a full adapter. A job whose submission was cut
short, by a crash or by an error of `submit`, has no id: it is LOST, nobody can end it, and it
is never started again. Nothing is paused, isolated, limited or given secrets: a request that
asks for that is refused.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from temporal_fabric.adapters import contract
from temporal_fabric.adapters.contract import Inventory, JobHandle, Phase, Shortfall, Verdict
from temporal_fabric.adapters.six_records import (
    ENDED,
    FORBIDDEN,
    INTENT,
    LOST,
    RUNNING,
    JobRecord,
    JobRecords,
)
from temporal_fabric.errors import (
    BackendError,
    BackendUnknown,
    PermanentBackendError,
    TransientBackendError,
)
from temporal_fabric.states import Reason

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

    from temporal_fabric.adapters.contract import AttemptKey, AttemptSpec
    from temporal_fabric.config import BackendConfig, Settings
    from temporal_fabric.requests.models import ExecutionRequest

_METHODS = ("get_name", "can_fulfill", "submit", "get_status", "stream_logs", "terminate")

_WAITING = frozenset({"PENDING", "QUEUED", "SUBMITTED", "PREPARING", "STARTING"})
_RUNNING = frozenset({"RUNNING", "COMPLETING"})
_GOOD = frozenset({"SUCCEEDED", "SUCCESS", "COMPLETED", "DONE", "FINISHED"})
_BAD = frozenset({"FAILED", "ERROR", "CANCELLED", "CANCELED", "TERMINATED", "KILLED", "STOPPED"})

_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.1, 2.0
_GONE_S = 30.0
"""How long a terminated job may take to be gone before it is asked for again."""


@dataclass(frozen=True, slots=True)
class JobStatus:
    """What `BackendAdapter.submit` and `get_status` return; a mapping does as well."""

    job_id: str
    state: str
    """``PENDING``, ``RUNNING``, ``SUCCEEDED``, ``FAILED``, ``CANCELLED``, or a common synonym."""

    exit_code: int | None = None
    """Of a job that has ended; negative for a signal."""

    message: str = ""


class BackendAdapter(Protocol):
    """The six methods. Each may block for some seconds, and raise when it does not know."""

    def get_name(self) -> str:
        """Return a name for people, such as ``kubernetes-adapter-v1``."""
        ...

    def can_fulfill(self, req: ExecutionRequest) -> bool:
        """Return whether this backend could ever run the request."""
        ...

    def submit(self, req: ExecutionRequest) -> JobStatus:
        """Start a job; called once for each attempt, with the ``FABRIC_...`` variables in env."""
        ...

    def get_status(self, job_id: str) -> JobStatus:
        """Return a job's state, in any process and after any restart of the worker."""
        ...

    def stream_logs(self, job_id: str) -> Iterable[str]:
        """Yield the job's output so far from its beginning, newlines included, and end."""
        ...

    def terminate(self, job_id: str) -> None:
        """End a job and all it has started; of one that has ended, do nothing."""
        ...


def has_six_methods(found: object) -> bool:
    """Return whether something is an adapter of six methods and no full one."""
    return all(hasattr(found, name) for name in _METHODS) and not hasattr(found, "find")


class SixMethods:
    """See `temporal_fabric.adapters.contract.Adapter` for the promises.

    Args:
        inner: The adapter of six methods.
        config: The backend's configuration.
        settings: Where records are kept.
        host: This host's id.
    """

    def __init__(
        self, inner: BackendAdapter, config: BackendConfig, settings: Settings, host: str
    ) -> None:
        self._inner, self._config = inner, config
        self._name = f"{config.name}@{host}"
        self._records = JobRecords(settings.home / "adapters" / config.name)

    @property
    def kind(self) -> str:
        """The kind under which it is configured."""
        return self._config.kind

    @property
    def slots(self) -> int | None:
        """Attempts at once, where the owner has set a number."""
        return self._config.slots

    def get_name(self) -> str:
        """See `Adapter.get_name`."""
        return self._name

    async def can_fulfill(self, request: ExecutionRequest) -> Verdict:
        """See `Adapter.can_fulfill`."""
        shortfalls = list(_beyond(request))
        if not await self._ask(lambda: self._inner.can_fulfill(request)):
            name = self._inner.get_name()
            shortfalls.append(Shortfall(f"{name} says that it cannot", "choose another backend"))
        return Verdict.of(*shortfalls)

    async def submit(self, attempt: AttemptSpec) -> JobHandle:
        """See `Adapter.submit`."""
        record = await self._alone(attempt.key, lambda: self._submit(attempt))
        return JobHandle(attempt.key, record.job_id)

    async def find(self, key: AttemptKey) -> contract.JobStatus:
        """See `Adapter.find`."""
        return _status(await self._alone(key, lambda: self._look(str(key))))

    async def get_status(self, handle: JobHandle) -> contract.JobStatus:
        """See `Adapter.get_status`."""
        return await self.find(handle.key)

    async def wait(self, handle: JobHandle, limit_s: float) -> contract.JobStatus:
        """See `Adapter.wait`."""
        deadline, pause_s = time.monotonic() + limit_s, _FIRST_LOOK_S
        while True:
            status = await self.find(handle.key)
            left_s = deadline - time.monotonic()
            if status.phase is not Phase.RUNNING or left_s <= 0:
                return status
            await asyncio.sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, _LONGEST_LOOK_S)

    async def stream_logs(self, handle: JobHandle, from_offset: int = 0) -> AsyncIterator[bytes]:
        """See `Adapter.stream_logs`."""
        record = await self._alone(handle.key, lambda: self._look(str(handle.key)))
        if record is not None and record.log:
            path = Path(record.log)
            data = await asyncio.to_thread(lambda: path.read_bytes() if path.exists() else b"")
            if len(data) > from_offset:
                yield data[from_offset:]

    async def terminate(self, key: AttemptKey, grace_s: float) -> contract.JobStatus:
        """See `Adapter.terminate`; how long a job has for a clean end is the adapter's choice."""
        return _status(await self._alone(key, lambda: self._terminate(str(key), grace_s)))

    async def forget(self, key: AttemptKey) -> None:
        """See `Adapter.forget`."""
        await self._alone(key, lambda: self._forget(str(key)))

    async def inventory(self) -> Inventory:
        """See `Adapter.inventory`."""
        records = await asyncio.to_thread(lambda: list(self._records.all()))
        return Inventory(
            name=self._name,
            kind=self.kind,
            healthy=True,
            slots=self.slots or 0,
            running=sum(record.live for record in records),
            labels=dict(self._config.labels),
            about={"adapter": await self._ask(self._inner.get_name)},
        )

    async def aclose(self) -> None:
        """See `Adapter.aclose`; there is nothing to release."""

    def _submit(self, attempt: AttemptSpec) -> JobRecord:
        key = str(attempt.key)
        if (known := self._look(key)) is not None:
            if known.state == FORBIDDEN:
                raise PermanentBackendError(f"the attempt was ended before [key={key}]")
            return known
        limits = attempt.request.limits
        log = str(attempt.folder / "stdout.log")
        intent = JobRecord(INTENT, log=log, wall_s=limits.wall_s)
        self._records.write(key, intent)
        told = _read(self._inner.submit(_with_variables(attempt)))
        record = replace(intent, state=RUNNING, job_id=told.job_id)
        self._records.write(key, record)
        return record

    def _look(self, key: str) -> JobRecord | None:
        """Return what is so now; the attempt's lock is held."""
        record = self._records.read(key)
        if record is None or not record.live:
            return record
        if record.state == INTENT:
            # Whoever wrote it held the lock until the job had an id, or did not live to see it.
            message = "its submission was cut short: nobody knows whether the job exists"
            return self._end(key, replace(record, state=LOST, message=message))
        told = _read(self._inner.get_status(record.job_id))
        if told.state in _WAITING | _RUNNING:
            return self._running(key, record, told)
        self._carry_log(record, whole=True)
        return self._end(key, _ended(record, told))

    def _running(self, key: str, record: JobRecord, told: JobStatus) -> JobRecord:
        self._carry_log(record, whole=False)
        if told.state in _RUNNING and record.started_at is None:
            record = replace(record, started_at=time.time())
            self._records.write(key, record)
        begun, limit_s = record.started_at, record.wall_s
        if begun is not None and limit_s is not None and time.time() - begun > limit_s:
            record = replace(record, reason=Reason.TIMEOUT, message="the wall limit was reached")
            self._records.write(key, record)
            self._inner.terminate(record.job_id)
        return record

    def _terminate(self, key: str, grace_s: float) -> JobRecord:
        record = self._look(key)
        if record is None:
            message = "the attempt was forbidden before it started"
            return self._end(key, JobRecord(FORBIDDEN, reason=Reason.LOST, message=message))
        deadline = time.monotonic() + grace_s + _GONE_S
        if record.live:
            self._inner.terminate(record.job_id)
        while record is not None and record.live:
            if time.monotonic() > deadline:
                raise TransientBackendError(f"the job is still there [job={record.job_id}]")
            time.sleep(_FIRST_LOOK_S)
            record = self._look(key)
        if record is None:
            raise BackendUnknown(f"the record is gone [key={key}]")
        return record

    def _forget(self, key: str) -> None:
        record = self._look(key)
        if record is not None and record.live:
            raise TransientBackendError(f"the job still runs [key={key}]")
        if record is not None:
            self._records.write(key, replace(record, forgotten=True))

    def _end(self, key: str, record: JobRecord) -> JobRecord:
        record = replace(record, ended_at=record.ended_at or time.time())
        self._records.write(key, record)
        return record

    def _carry_log(self, record: JobRecord, *, whole: bool) -> None:
        path = Path(record.log)
        if not path.parent.is_dir():
            return  # sealed already
        data = "".join(self._inner.stream_logs(record.job_id)).encode()
        # The end of what is still being written may change with the next byte.
        end = len(data) if whole else data.rfind(b"\n") + 1
        with path.open("ab") as file:
            file.write(data[file.tell() : end])

    async def _alone(self, key: AttemptKey, work: Callable[[], Any]) -> Any:
        def locked() -> Any:
            with self._records.locked(str(key)):
                return work()

        return await self._ask(locked)

    async def _ask(self, work: Callable[[], Any]) -> Any:
        """Run something in a thread; what leaves it is one of the contract's errors."""
        try:
            return await asyncio.to_thread(work)
        except BackendError:
            raise
        except Exception as exc:
            # Whatever it was, it is no answer: nothing may be concluded from it.
            raise BackendUnknown(f"{self._name}: {type(exc).__name__}: {exc}") from exc


def _beyond(request: ExecutionRequest) -> Iterator[Shortfall]:
    """Yield what a request asks for that six methods have no words for."""
    limits = request.limits
    program = request.payload.process or request.payload.python
    asked = {
        "/secrets": request.secrets,
        "/environment": request.environment,
        "/payload/.../isolation": program and program.isolation not in {None, "none"},
        "/payload/.../network": program and program.network,
    } | {
        f"/limits/{name}": getattr(limits, name)
        for name in ("memory_bytes", "cpus", "pids", "open_files", "log_bytes")
    }
    for path, value in asked.items():
        if value:
            yield Shortfall(f"an adapter of six methods cannot do {path}", f"drop {path}")


def _with_variables(attempt: AttemptSpec) -> ExecutionRequest:
    """Return the request with the attempt's variables in its payload's environment."""
    request = attempt.request
    program = getattr(request.payload, request.kind)
    # Not by admission: these names are the fabric's, and a request of a user may not set them.
    program = program.model_copy(update={"env": {**program.env, **attempt.env}})
    payload = request.payload.model_copy(update={request.kind: program})
    return request.model_copy(update={"payload": payload})


def _read(told: object) -> JobStatus:
    """Read what a method has returned.

    Raises:
        BackendUnknown: it has no job id, or a state that means nothing.
    """
    if isinstance(told, Mapping):
        found = dict(cast("Mapping[str, Any]", told))
    else:
        names = ("job_id", "state", "exit_code", "message")
        found = {name: getattr(told, name, None) for name in names}
    job_id, code = found.get("job_id"), found.get("exit_code")
    state = str(found.get("state")).rpartition(".")[2].upper()
    if not job_id or state not in _WAITING | _RUNNING | _GOOD | _BAD:
        raise BackendUnknown(f"no status of a job: {told!r:.200}")
    text = str(found.get("message") or "")
    return JobStatus(str(job_id), state, None if code is None else int(code), text)


def _ended(record: JobRecord, told: JobStatus) -> JobRecord:
    record = replace(record, state=ENDED, message=record.message or told.message)
    if record.reason:
        return record
    if told.state in _GOOD:
        return replace(record, exit_code=told.exit_code or 0)
    if told.exit_code:
        return replace(record, exit_code=told.exit_code)
    return replace(record, reason=Reason.SIGNAL, message=told.message or f"it is {told.state}")


def _status(record: JobRecord | None) -> contract.JobStatus:
    if record is None:
        return contract.JobStatus(Phase.ABSENT)
    phases = {INTENT: Phase.RUNNING, RUNNING: Phase.RUNNING, LOST: Phase.LOST}
    phase = phases.get(record.state, Phase.ENDED)
    ended, code = phase is Phase.ENDED, record.exit_code
    killed = code is not None and code < 0
    return contract.JobStatus(
        phase=phase,
        native_id=record.job_id,
        exit_code=None if killed or not ended else code,
        signal=-code if killed and code is not None else None,
        reason=record.reason if ended else "",
        message=record.message,
        started_at=record.started_at,
        ended_at=record.ended_at,
    )
