"""Payloads as Jobs of a Kubernetes cluster: one Job with one name per attempt.

The name is what makes `submit` idempotent: of several creates the API server takes one. A Job is
never deleted by the fabric, for that would free its name. It ends, its end is recorded with it,
its pods are removed, and the cluster removes it after some days. What is done to one Job stands
in `kubernetes_work`; how its state is read in `kubernetes_states`.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, TypeVar

from temporal_fabric.adapters.contract import Inventory, JobHandle, Phase, Verdict
from temporal_fabric.adapters.kubernetes_api import KubernetesApi, NotFound
from temporal_fabric.adapters.kubernetes_job import BACKEND, ENDED, label_value
from temporal_fabric.adapters.kubernetes_nodes import nodes_of
from temporal_fabric.adapters.kubernetes_options import read_options
from temporal_fabric.adapters.kubernetes_rights import lacking_rights
from temporal_fabric.adapters.kubernetes_verdict import kubernetes_verdict
from temporal_fabric.adapters.kubernetes_work import JobWork
from temporal_fabric.errors import BackendUnknown
from temporal_fabric.holes import pieces
from temporal_fabric.workplace import Workplace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from temporal_fabric.adapters.contract import (
        AttemptKey,
        AttemptSpec,
        CommandPiece,
        JobStatus,
    )
    from temporal_fabric.config import BackendConfig, Settings
    from temporal_fabric.requests.models import ExecutionRequest

T = TypeVar("T")

KIND = "kubernetes"

_BIND = "bind it to the role in deploy/kubernetes/base/role.yaml"
_NO_IMAGE = (
    "process and python payloads that name no image are refused: "
    "set image in the backend's options in fabric.toml"
)
_FIRST_PAUSE_S = 0.1
_SLOWER = 1.5
_COMMAND_PAUSE_S = 0.3


class KubernetesJobsAdapter:
    """See `temporal_fabric.adapters.contract.Adapter` for the promises.

    Raises:
        RequestRejected: its options are wrong; every problem is listed.
    """

    kind = KIND

    def __init__(self, config: BackendConfig, settings: Settings, host: str) -> None:
        self._config, self._settings = config, settings
        # What was staged for an attempt lies on this host, so its worker is the one here.
        self._name = f"{config.name}@{host}"
        self._options = read_options(config.options, config.name)
        self._api = KubernetesApi(self._options, config.name)

    def get_name(self) -> str:
        """See `Adapter.get_name`."""
        return self._name

    @property
    def slots(self) -> int | None:
        """See `Adapter.slots`."""
        return self._config.slots

    @property
    def largest_gang(self) -> int:
        """See `Ganging.largest_gang`."""
        return self._options.largest_gang

    async def can_fulfill(self, request: ExecutionRequest) -> Verdict:
        """See `Adapter.can_fulfill`."""
        nodes = await self._asking(lambda: nodes_of(self._api))
        return kubernetes_verdict(request, self._config, self._options, nodes)

    async def submit(self, attempt: AttemptSpec) -> JobHandle:
        """See `Adapter.submit`."""
        return await self._asking(lambda: self._work(attempt.key).start(attempt))

    async def find(self, key: AttemptKey) -> JobStatus:
        """See `Adapter.find`."""
        return await self._asking(self._work(key).look)

    async def get_status(self, handle: JobHandle) -> JobStatus:
        """See `Adapter.get_status`."""
        return await self.find(handle.key)

    async def wait(self, handle: JobHandle, limit_s: float) -> JobStatus:
        """See `Adapter.wait`."""
        work, pause = self._work(handle.key), _FIRST_PAUSE_S
        until = time.monotonic() + limit_s
        while True:
            status = await self._asking(work.advance)
            left = until - time.monotonic()
            if status.phase is not Phase.RUNNING or left <= 0:
                return status
            await asyncio.sleep(min(pause, left))
            pause = min(pause * _SLOWER, self._options.poll_s)

    async def stream_logs(self, handle: JobHandle, from_offset: int = 0) -> AsyncIterator[bytes]:
        """See `Adapter.stream_logs`."""
        work = self._work(handle.key)
        await self._asking(work.follow)
        async for piece in pieces(work.place.stdout, from_offset):
            yield piece

    async def terminate(self, key: AttemptKey, grace_s: float) -> JobStatus:
        """See `Adapter.terminate`."""
        return await self._asking(lambda: self._work(key).stop(grace_s))

    async def pause(self, key: AttemptKey) -> JobStatus:
        """See `Pausing.pause`."""
        return await self._asking(self._work(key).pause)

    async def resume(self, key: AttemptKey) -> JobStatus:
        """See `Pausing.resume`."""
        return await self._asking(self._work(key).resume)

    async def execute(
        self, key: AttemptKey, command: str, argv: tuple[str, ...], withheld: frozenset[str]
    ) -> None:
        """See `Executing.execute`."""
        work = self._work(key)
        await self._asking(lambda: work.commands().start(command, argv, withheld))

    async def fetch(
        self, key: AttemptKey, command: str, offsets: tuple[int, int], limit_s: float
    ) -> CommandPiece:
        """See `Executing.fetch`."""
        work, until = self._work(key), time.monotonic() + limit_s
        while True:
            piece = await self._asking(lambda: work.command_piece(command, offsets))
            left = until - time.monotonic()
            if piece.stdout or piece.stderr or piece.ended or left <= 0:
                return piece
            await asyncio.sleep(min(_COMMAND_PAUSE_S, left))

    async def end(self, key: AttemptKey, command: str) -> None:
        """See `Executing.end`."""
        work = self._work(key)
        await self._asking(lambda: work.end_command(command))

    async def forget(self, key: AttemptKey) -> None:
        """See `Adapter.forget`."""
        await self._asking(self._work(key).forget)

    async def inventory(self) -> Inventory:
        """See `Adapter.inventory`."""
        return await self._asking(self._inventory)

    async def aclose(self) -> None:
        """See `Adapter.aclose`."""
        self._api.close()

    def _work(self, key: AttemptKey) -> JobWork:
        place = Workplace.of(self._settings.runs, key.tenant, key.request_id, key.epoch)
        return JobWork(self._api, self._options, self._name, key, place)

    async def _asking(self, ask: Callable[[], T]) -> T:
        """Run what blocks in a thread."""
        try:
            return await asyncio.to_thread(ask)
        except NotFound as exc:
            # Where that is an answer it has been taken as one.
            raise BackendUnknown(f"the API server finds nothing: {exc}") from exc

    def _inventory(self) -> Inventory:
        where = {"server": self._api.server, "namespace": self._api.namespace}
        if lacking := lacking_rights(self._api, self._options):
            text = f"the account may not {', '.join(lacking)} in namespace {where['namespace']}"
            return self._unusable(f"{text}: {_BIND}", where)
        nodes = nodes_of(self._api)
        if nodes == [] and not self._options.autoscaled:
            return self._unusable("no node takes pods: see kubectl get nodes", where)
        path = f"/apis/batch/v1/namespaces/{where['namespace']}/jobs"
        mine = f"{BACKEND}={label_value(self._name)},!{ENDED}"
        about = where | ({} if nodes is None else {"nodes": str(len(nodes))})
        return Inventory(
            name=self._name,
            kind=KIND,
            healthy=True,
            slots=self.slots or 0,
            running=len(self._api.rows(path, labelSelector=mine)),
            labels=dict(self._config.labels),
            about=about,
            warnings=() if self._options.image else (_NO_IMAGE,),
        )

    def _unusable(self, why: str, about: dict[str, str]) -> Inventory:
        return Inventory(
            self._name, KIND, healthy=False, slots=0, running=0, unusable=why, about=about
        )
