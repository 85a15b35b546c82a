"""Payloads as processes of this host, under a launcher that outlives the worker.

The launcher's durable record per attempt is what makes `submit` idempotent and lets a new
worker adopt a running payload: see `temporal_fabric.launcher`.
"""

from __future__ import annotations

import asyncio
import base64
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from temporal_fabric.adapters.contract import (
    AttemptKey,
    CommandPiece,
    Inventory,
    JobHandle,
    JobStatus,
    Phase,
    Verdict,
)
from temporal_fabric.adapters.host_gpus import HostGpus, variables
from temporal_fabric.adapters.local_command import local_command
from temporal_fabric.adapters.local_isolation import (
    isolated,
    lacking_for_flow,
    lacking_isolation,
    level_of,
)
from temporal_fabric.adapters.local_secrets import lacking, with_secrets
from temporal_fabric.adapters.local_verdict import local_verdict
from temporal_fabric.errors import PermanentBackendError
from temporal_fabric.holes import pieces
from temporal_fabric.isolation.abilities import Abilities, of_launcher, with_log_cap, with_sandbox
from temporal_fabric.isolation.rules import NONE, SANDBOX, read_rules
from temporal_fabric.launcher import LauncherClient, LaunchRecord, LaunchSpec
from temporal_fabric.secrets import resolving
from temporal_fabric.states import Reason
from temporal_fabric.workplace import Workplace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

    from temporal_fabric.adapters.contract import AttemptSpec
    from temporal_fabric.config import BackendConfig, Settings
    from temporal_fabric.gpus.devices import Device
    from temporal_fabric.requests.models import ExecutionRequest

KIND = "local"

_PASSED_ON = ("HOME", "LANG", "LC_ALL", "PATH", "TMPDIR", "TZ", "USER")
"""Variables of the worker that a payload inherits; everything else is asked for by name."""


_PHASES = {
    "absent": Phase.ABSENT,
    "intent": Phase.RUNNING,
    "running": Phase.RUNNING,
    "ended": Phase.ENDED,
    "lost": Phase.LOST,
}

_WHY: dict[str, tuple[Reason, str]] = {
    "wall": (Reason.TIMEOUT, "the wall limit was reached"),
    "exec": (Reason.SETUP, "the command could not be started"),
    "terminated": (Reason.SIGNAL, "terminated by the fabric"),
    "forbidden": (Reason.LOST, "the attempt was forbidden before it started"),
}


class LocalProcessAdapter:
    """See `temporal_fabric.adapters.contract.Adapter` for the promises."""

    kind = KIND

    def __init__(self, config: BackendConfig, settings: Settings, host: str) -> None:
        self._config = config
        self._settings = settings
        self._name = f"{config.name}@{host}"
        self._rules = read_rules(config.options, config.name)
        launcher = str(settings.launcher)
        self._gpus = HostGpus(self._name, self._rules.gpus, launcher=launcher)
        self._client: LauncherClient | None = None
        self._connecting = asyncio.Lock()

    def get_name(self) -> str:
        """See `Adapter.get_name`."""
        return self._name

    @property
    def slots(self) -> int:
        """Attempts that run at once."""
        return self._config.slots or os.cpu_count() or 1

    async def can_fulfill(self, request: ExecutionRequest) -> Verdict:
        """See `Adapter.can_fulfill`."""
        facts = await asyncio.to_thread(self._gpus.labels, request)
        verdict = local_verdict(request, facts | self._config.labels)
        shortfalls = [*verdict.shortfalls, *lacking(request, self._settings.secrets)]
        if request.payload.process or request.payload.python:
            able = await self._abilities(request, probe=True)
            shortfalls += lacking_isolation(request, self._rules, able)
            shortfalls += await asyncio.to_thread(lambda: list(self._gpus.lacking(request)))
        if request.payload.flow:
            shortfalls += lacking_for_flow(
                request.payload.flow.energy, self._rules.least(request.tenant)
            )
        return Verdict.of(*shortfalls)

    async def submit(self, attempt: AttemptSpec) -> JobHandle:
        """See `Adapter.submit`."""
        client = await self._launcher()
        able = await self._abilities(attempt.request, probe=False)
        gpus = await self._gpus.reserve(attempt)
        try:
            record = await client.start(await asyncio.to_thread(self._launch, attempt, able, gpus))
        except PermanentBackendError:
            if gpus and (await self.find(attempt.key)).phase is not Phase.RUNNING:
                await asyncio.to_thread(self._gpus.release, attempt.key)
            raise
        return JobHandle(attempt.key, _native_id(record))

    def _launch(
        self, attempt: AttemptSpec, able: Abilities, gpus: tuple[Device, ...]
    ) -> LaunchSpec:
        spec = _launch_spec(attempt)
        spec = replace(spec, env=spec.env | variables(gpus))
        spec = with_secrets(spec, attempt.request, self._settings.secrets)
        return isolated(spec, attempt, self._settings.home, self._rules, able, gpus=gpus)

    async def free_gpus(
        self, request: ExecutionRequest, but: Collection[str]
    ) -> tuple[str, ...] | None:
        """See `GivingGpus.free_gpus`."""
        return await asyncio.to_thread(self._gpus.free, request, but)

    async def _abilities(self, request: ExecutionRequest, *, probe: bool) -> Abilities:
        """Return what this host can hold, as far as the request needs it.

        Args:
            request: An admitted request.
            probe: Whether sandbox and file system are tried as well.
        """
        level, capped = level_of(request, self._rules), request.limits.log_bytes is not None
        if level == NONE and not capped:
            return Abilities()
        info = await (await self._launcher()).info()
        able = of_launcher(info)
        if probe and level == SANDBOX:
            able = await asyncio.to_thread(with_sandbox, able, self._rules)
        if probe and capped:
            able = await asyncio.to_thread(with_log_cap, able, self._settings.runs)
        return able

    async def find(self, key: AttemptKey) -> JobStatus:
        """See `Adapter.find`."""
        client = await self._launcher()
        return _status(await client.query(str(key)))

    async def get_status(self, handle: JobHandle) -> JobStatus:
        """See `Adapter.get_status`."""
        return await self.find(handle.key)

    async def wait(self, handle: JobHandle, limit_s: float) -> JobStatus:
        """See `Adapter.wait`."""
        client = await self._launcher()
        return _status(await client.wait(str(handle.key), limit_s))

    async def stream_logs(self, handle: JobHandle, from_offset: int = 0) -> AsyncIterator[bytes]:
        """See `Adapter.stream_logs`."""
        key = handle.key
        place = Workplace.of(self._settings.runs, key.tenant, key.request_id, key.epoch)
        async for piece in pieces(place.stdout, from_offset):
            yield piece

    async def terminate(self, key: AttemptKey, grace_s: float) -> JobStatus:
        """See `Adapter.terminate`."""
        client = await self._launcher()
        status = _status(await client.terminate(str(key), grace_s))
        await asyncio.to_thread(self._clear, key)
        return status

    def _clear(self, key: AttemptKey) -> None:
        """Take back what an attempt had of the host, of which nothing runs any more."""
        resolving.remove(str(key))
        self._gpus.release(key)

    async def pause(self, key: AttemptKey) -> JobStatus:
        """See `Pausing.pause`."""
        client = await self._launcher()
        return _status(await client.freeze(str(key)))

    async def resume(self, key: AttemptKey) -> JobStatus:
        """See `Pausing.resume`."""
        client = await self._launcher()
        return _status(await client.thaw(str(key)))

    async def execute(
        self, key: AttemptKey, command: str, argv: tuple[str, ...], withheld: frozenset[str]
    ) -> None:
        """See `Executing.execute`."""
        client = await self._launcher()
        await client.execute(str(key), command, argv, sorted(withheld))

    async def fetch(
        self, key: AttemptKey, command: str, offsets: tuple[int, int], limit_s: float
    ) -> CommandPiece:
        """See `Executing.fetch`."""
        client = await self._launcher()
        told = await client.fetch(str(key), command, offsets, limit_s)
        return CommandPiece(
            stdout=base64.b64decode(told["stdout"]),
            stderr=base64.b64decode(told["stderr"]),
            ended=told["ended"],
            exit_code=told.get("exit_code"),
            signal=told.get("signal"),
            error=told["error"],
        )

    async def end(self, key: AttemptKey, command: str) -> None:
        """See `Executing.end`."""
        client = await self._launcher()
        await client.end(str(key), command)

    async def forget(self, key: AttemptKey) -> None:
        """See `Adapter.forget`."""
        client = await self._launcher()
        await client.forget(str(key))
        await asyncio.to_thread(self._clear, key)

    async def inventory(self) -> Inventory:
        """See `Adapter.inventory`."""
        client = await self._launcher()
        live = await client.keys()
        info = await client.info()
        able = await asyncio.to_thread(with_sandbox, of_launcher(info), self._rules)
        facts, gpus = await asyncio.to_thread(self._gpus.state)
        return Inventory(
            name=self._name,
            kind=KIND,
            healthy=True,
            slots=self.slots,
            running=len(live),
            labels=facts | self._config.labels,
            detail=info | {"isolation": able.summary()} | gpus,
        )

    async def aclose(self) -> None:
        """See `Adapter.aclose`."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _launcher(self) -> LauncherClient:
        async with self._connecting:
            if self._client is None:
                self._client = await LauncherClient.connect(self._settings.launcher)
            return self._client


def _launch_spec(attempt: AttemptSpec) -> LaunchSpec:
    request, command = attempt.request, local_command(attempt)
    env = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    env |= {"PYTHONUNBUFFERED": "1"}
    env |= command.env | attempt.env
    return LaunchSpec(
        key=str(attempt.key),
        argv=command.argv,
        env=env,
        cwd=str(attempt.folder / "task" / command.workdir),
        stdout=str(attempt.folder / "stdout.log"),
        stderr=str(attempt.folder / "stderr.log"),
        wall_s=request.limits.wall_s,
        grace_s=request.limits.grace_s,
    )


def _native_id(record: LaunchRecord) -> str:
    # A pid alone is reused within minutes on a busy host; with its start time it is not.
    return f"pid {record.pid} (start {record.start_time})" if record.pid else ""


def _status(record: LaunchRecord) -> JobStatus:
    reason, message = _end(record)
    return JobStatus(
        phase=_PHASES[record.state],
        native_id=_native_id(record),
        exit_code=record.exit_code,
        signal=record.signal,
        oom_kills=record.oom_kills,
        log_dropped_bytes=record.log_dropped_bytes,
        reason=reason,
        message=message,
        started_at=record.started_at,
        ended_at=record.ended_at,
        cpu_s=record.cpu_s,
        max_rss_bytes=record.max_rss_bytes,
        paused=record.frozen_at is not None,
        paused_s=record.frozen_s,
    )


def _end(record: LaunchRecord) -> tuple[str, str]:
    """Name an end that the payload did not choose itself."""
    if record.state == "lost":
        return (Reason.LOST, "the launcher ended before the payload did, and took it along")
    if record.state != "ended":
        return ("", "")
    if record.why in _WHY:
        reason, message = _WHY[record.why]
        return (reason, f"{message}: {record.error}" if record.error else message)
    return ("", "")
