"""Payloads as containers of a Docker engine on the worker's host.

The engine keeps the containers and this host keeps what was promised about them, so a worker
that starts anew finds both: see `temporal_fabric.adapters.docker_jobs`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from temporal_fabric.adapters import docker_logs
from temporal_fabric.adapters.container_inside import image_of
from temporal_fabric.adapters.contract import (
    AttemptKey,
    Inventory,
    JobHandle,
    JobStatus,
    Phase,
    Verdict,
)
from temporal_fabric.adapters.docker_calls import Engine
from temporal_fabric.adapters.docker_commands import DockerCommands
from temporal_fabric.adapters.docker_jobs import WALL, DockerJobs
from temporal_fabric.adapters.docker_options import read_options
from temporal_fabric.adapters.docker_records import prune
from temporal_fabric.adapters.docker_verdict import docker_verdict, unfit
from temporal_fabric.adapters.host_gpus import HostGpus
from temporal_fabric.errors import PermanentBackendError, TransientBackendError
from temporal_fabric.workplace import Workplace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection

    from temporal_fabric.adapters.contract import AttemptSpec, CommandPiece
    from temporal_fabric.adapters.docker_jobs import Limit
    from temporal_fabric.config import BackendConfig, Settings
    from temporal_fabric.requests.models import ExecutionRequest

T = TypeVar("T")

log = logging.getLogger(__name__)

KIND = "docker"

_THREADS = 128
"""One for each output that is followed, and some for calls; they wait and do little."""

_PATIENCE_S = 20.0
"""A busy engine takes seconds to start a container."""

_NO_LIVE_RESTORE = (
    'a restart of the engine ends what runs on it: set "live-restore": true in its daemon.json'
)

_AGAIN_S = 0.2
_LOOK_S = 5.0
"""An end is told by the end of the output; this is for an engine that forgets to."""


class DockerEngineAdapter:
    """See `temporal_fabric.adapters.contract.Adapter` for the promises.

    Args:
        config: The backend's table in fabric.toml.
        settings: What the fabric is told.
        host: Id of this host.
        patience_s: How long the engine may take for an answer.

    Raises:
        RequestRejected: wrong options; every one is a problem.
    """

    kind = KIND

    def __init__(
        self,
        config: BackendConfig,
        settings: Settings,
        host: str,
        *,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self._config, self._settings = config, settings
        self._name = f"{config.name}@{host}"
        self._options = read_options(config.options, config.name)
        self._root = settings.home / "docker" / config.name
        self._engine = Engine(self._options.host, patience_s)
        self._jobs = DockerJobs(self._engine, self._options, self._name, self._root)
        gpus = self._options.gpus
        self._gpus = HostGpus(self._name, gpus, ended=self._has_ended, unseen=True)
        self._commands = DockerCommands(self._engine, self._root)
        self._threads = ThreadPoolExecutor(_THREADS, "docker")
        self._copying: dict[AttemptKey, asyncio.Task[None]] = {}
        self._pruned = False

    def get_name(self) -> str:
        """See `Adapter.get_name`."""
        return self._name

    @property
    def slots(self) -> int:
        """Attempts that run at once."""
        return self._config.slots or os.cpu_count() or 1

    async def can_fulfill(self, request: ExecutionRequest) -> Verdict:
        """See `Adapter.can_fulfill`."""
        reference = image_of(request, self._options.image)
        about = await self._call(self._engine.about)
        image = await self._call(self._engine.image, reference) if reference else None
        labels = await self._call(self._gpus.labels, request) | self._config.labels
        verdict = docker_verdict(request, labels, self._options, about, image)
        more = await self._call(lambda: list(self._gpus.lacking(request)))
        return Verdict.of(*verdict.shortfalls, *more)

    async def submit(self, attempt: AttemptSpec) -> JobHandle:
        """See `Adapter.submit`."""
        if not self._pruned:
            self._pruned = True
            await self._call(prune, self._root)
        gpus = tuple(device.id for device in await self._gpus.reserve(attempt))
        try:
            await self._call(self._jobs.start, attempt, gpus)
        except PermanentBackendError:
            # One that was terminated has its devices to the end of its grace.
            if gpus and (await self.find(attempt.key)).phase is not Phase.RUNNING:
                await self._call(self._gpus.release, attempt.key)
            raise
        return JobHandle(attempt.key, (await self.find(attempt.key)).native_id)

    async def free_gpus(
        self, request: ExecutionRequest, but: Collection[str]
    ) -> tuple[str, ...] | None:
        """See `GivingGpus.free_gpus`."""
        return await self._call(self._gpus.free, request, but)

    def _has_ended(self, key: str) -> bool:
        tenant, request_id, epoch = key.split("@")
        status, _ = self._jobs.look(AttemptKey(tenant, request_id, int(epoch)))
        return status.phase in {Phase.ENDED, Phase.LOST}

    async def find(self, key: AttemptKey) -> JobStatus:
        """See `Adapter.find`."""
        return (await self._call(self._jobs.look, key))[0]

    async def get_status(self, handle: JobHandle) -> JobStatus:
        """See `Adapter.get_status`."""
        return await self.find(handle.key)

    async def wait(self, handle: JobHandle, limit_s: float) -> JobStatus:
        """See `Adapter.wait`."""
        key, until = handle.key, time.monotonic() + limit_s
        while True:
            status, limit = await self._call(self._jobs.look, key)
            if status.phase is not Phase.RUNNING:
                await self._copied(key)
                await self._call(self._gpus.release, key)
                return status
            left = until - time.monotonic()
            if left <= 0:
                return status
            allowed = _allowed_s(status, limit)
            if allowed <= 0:
                await self._call(self._jobs.stop, key, limit.grace_s, WALL)
                continue
            if key in self._copying and self._copying[key].done():
                # Its output has ended and it runs: the engine was away, or is about to notice.
                await asyncio.sleep(_AGAIN_S)
                del self._copying[key]
            await asyncio.wait([self._copying_on(key)], timeout=min(left, allowed, _LOOK_S))

    async def stream_logs(self, handle: JobHandle, from_offset: int = 0) -> AsyncIterator[bytes]:
        """See `Adapter.stream_logs`."""
        name = self._jobs.name(handle.key)
        pieces = docker_logs.read(self._engine, name, from_offset)

        def read_on() -> bytes:
            return next(pieces, b"")

        while piece := await self._call(read_on):
            yield piece

    async def terminate(self, key: AttemptKey, grace_s: float) -> JobStatus:
        """See `Adapter.terminate`."""
        status = await self._call(self._jobs.terminate, key, grace_s)
        await self._call(self._gpus.release, key)
        try:
            await self._copied(key)
        except TransientBackendError as exc:
            log.warning("the last output of %s is not copied: %s", key, exc)
        return status

    async def pause(self, key: AttemptKey) -> JobStatus:
        """See `Pausing.pause`."""
        return await self._call(self._jobs.pause, key)

    async def resume(self, key: AttemptKey) -> JobStatus:
        """See `Pausing.resume`."""
        return await self._call(self._jobs.resume, key)

    async def execute(
        self, key: AttemptKey, command: str, argv: tuple[str, ...], withheld: frozenset[str]
    ) -> None:
        """See `Executing.execute`; what is withheld is secret, and a container gets none."""
        del withheld

        def start() -> None:
            self._commands.start(key, self._jobs.container(key), command, argv)

        await self._call(start)

    async def fetch(
        self, key: AttemptKey, command: str, offsets: tuple[int, int], limit_s: float
    ) -> CommandPiece:
        """See `Executing.fetch`."""
        return await self._call(self._commands.fetch, key, command, offsets, limit_s)

    async def end(self, key: AttemptKey, command: str) -> None:
        """See `Executing.end`."""
        await self._call(self._commands.end, key, command)

    async def forget(self, key: AttemptKey) -> None:
        """See `Adapter.forget`."""
        await self._call(self._jobs.forget, key)
        await self._call(self._gpus.release, key)

    async def inventory(self) -> Inventory:
        """See `Adapter.inventory`."""
        about, running = await asyncio.gather(
            self._call(self._engine.about), self._call(self._jobs.running)
        )
        why = unfit(about) or await self._call(self._lacking_image)
        facts, gpus = await self._call(self._gpus.state)
        return Inventory(
            name=self._name,
            kind=KIND,
            healthy=not why,
            slots=self.slots,
            running=running,
            labels=facts | self._config.labels,
            unusable=why,
            warnings=() if about.live_restore else (_NO_LIVE_RESTORE,),
            about={
                "engine": about.version,
                "API": ".".join(map(str, about.api)),
                "socket": self._options.socket,
            },
            detail={"isolation": {"limits": "yes", "sandbox": "yes"}} | gpus,
        )

    async def aclose(self) -> None:
        """See `Adapter.aclose`."""
        await asyncio.get_running_loop().run_in_executor(None, self._engine.close)
        await asyncio.gather(*self._copying.values(), return_exceptions=True)
        self._copying = {}
        self._threads.shutdown(wait=False)

    def _lacking_image(self) -> str:
        image = self._options.image
        if not image or self._options.pull or self._engine.image(image) is not None:
            return ""
        return f"the default image {image!r} is not here: docker pull {image}, or set 'pull'"

    def _copying_on(self, key: AttemptKey) -> asyncio.Task[None]:
        """Return the copying of an attempt's output, which is begun where nobody does it."""
        if key not in self._copying:
            self._copying[key] = asyncio.create_task(self._copy(key, follow=True))
        return self._copying[key]

    async def _copied(self, key: AttemptKey) -> None:
        """Copy what is left of the output of a job that has ended."""
        copying = self._copying.pop(key, None)
        if copying is not None:
            await asyncio.wait([copying])
        await self._copy(key, follow=False)

    async def _copy(self, key: AttemptKey, *, follow: bool) -> None:
        runs, name = self._settings.runs, self._jobs.name(key)
        folder = Workplace.of(runs, key.tenant, key.request_id, key.epoch).folder

        def copy() -> None:
            docker_logs.copy(self._engine, name, folder, follow=follow)

        try:
            await self._call(copy)
        except TransientBackendError as exc:
            if not follow:
                raise
            log.info("the output of %s is followed anew: %s", key, exc)

    async def _call(self, work: Callable[..., T], *args: Any) -> T:
        """Do blocking work in a thread.

        Raises:
            TransientBackendError: as the work does, or this host's own disk is in trouble.
        """
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, work, *args)
        except OSError as exc:
            raise TransientBackendError(f"this host's files cannot be used: {exc}") from exc


def _allowed_s(status: JobStatus, limit: Limit) -> float:
    """Return how long a job may still run."""
    if limit.wall_s is None or status.started_at is None or status.paused:
        return _LOOK_S
    return status.started_at + limit.wall_s + status.paused_s - time.time()
