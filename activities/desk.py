"""What every activity of one worker shares: settings, store, and the backends it serves."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from temporalio.exceptions import ApplicationError

from temporal_fabric.activities.capacity import Capacity
from temporal_fabric.activities.flow_copies import FlowCopies
from temporal_fabric.activities.gpu_line import GpuLine
from temporal_fabric.config import BackendConfig
from temporal_fabric.draining import DrainMark
from temporal_fabric.flows.engines import FlowEngines
from temporal_fabric.record import RequestRecord
from temporal_fabric.workplace import Workplace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from temporal_fabric.adapters.contract import Adapter, AttemptKey
    from temporal_fabric.config import Settings
    from temporal_fabric.errors import RequestRejected
    from temporal_fabric.observability.observer import Observer
    from temporal_fabric.store import Store

_NEIGHBOURS_S = 10.0


@dataclass(slots=True)
class Desk:
    """The worker's belongings. Nothing in it must survive the worker."""

    settings: Settings
    host: str
    store: Store
    observer: Observer
    backends: dict[str, Adapter] = field(default_factory=dict[str, "Adapter"])
    search_attributes: bool = False
    gpu_line: GpuLine = field(default_factory=GpuLine)
    _flows: FlowEngines | None = None
    _copies: FlowCopies | None = None
    _capacity: dict[str, Capacity] = field(default_factory=dict[str, Capacity])
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)
    _neighbours: dict[str, tuple[float, frozenset[str]]] = field(
        default_factory=dict[str, tuple[float, frozenset[str]]]
    )

    def capacity(self, backend: str) -> Capacity:
        """Return the places of one of this worker's backends."""
        if backend not in self._capacity:
            mark = DrainMark(self.settings.home, backend)
            self._capacity[backend] = Capacity(self.backend(backend).slots, mark)
        return self._capacity[backend]

    @property
    def flows(self) -> FlowEngines:
        """The warm processes of certified flows, which start with the first of them."""
        if self._flows is None:
            home = self.settings.home
            self._flows = FlowEngines(home / "cache" / "jax", self.settings.logs / "flows.log")
        return self._flows

    @property
    def copies(self) -> FlowCopies:
        """The copies of flows' checkpoints in the store."""
        if self._copies is None:
            self._copies = FlowCopies(self.settings, self.store)
        return self._copies

    async def forbid_flow(self, key: AttemptKey) -> None:
        """Return when nothing of a flow's attempt is computed, and never will be again."""
        if self._flows is not None:
            place = Workplace.of(self.settings.runs, key.tenant, key.request_id, key.epoch)
            await self._flows.forbid(place.checkpoints, key.epoch)

    def patience(self, backend: str) -> float:
        """Return how long a backend's worker may leave a granted attempt untaken, in seconds."""
        short = backend.partition("@")[0]
        own = next((c for c in self.settings.backends if c.name == short), BackendConfig(short))
        return own.patience_s

    async def neighbours(
        self, queue: str, look: Callable[[], Awaitable[set[str]]]
    ) -> frozenset[str]:
        """Return which other hosts take from a queue; looked up at most every ten seconds.

        Args:
            queue: Name of the queue.
            look: Asks the server for all hosts that do.
        """
        async with self._looking:
            looked_at, hosts = self._neighbours.get(queue, (float("-inf"), frozenset()))
            if time.monotonic() - looked_at > _NEIGHBOURS_S:
                hosts = frozenset(await look() - {self.host})
                self._neighbours[queue] = (time.monotonic(), hosts)
            return hosts

    def places(self) -> list[tuple[str, int, int]]:
        """Return for each backend how many attempts run and how many requests wait."""
        taken = {name: self.capacity(name) for name in self.backends}
        return [(name, places.running, places.waiting) for name, places in taken.items()]

    async def aclose(self) -> None:
        """Release what the backends hold; jobs go on."""
        self.observer.close()
        if self._copies is not None:
            await self._copies.aclose()
        if self._flows is not None:
            await self._flows.aclose()
        for adapter in self.backends.values():
            await adapter.aclose()

    def record(self, tenant: str, request_id: str) -> RequestRecord:
        """Return the request record of one request."""
        return RequestRecord(self.store, tenant, request_id)

    def backend(self, name: str) -> Adapter:
        """Return one of this worker's backends.

        Raises:
            ApplicationError: retryable; the queue was polled by a worker of another set-up.
        """
        adapter = self.backends.get(name)
        if adapter is None:
            raise ApplicationError(
                f"this worker does not serve the backend [backend={name}, "
                f"serves={', '.join(self.backends) or 'none'}]: compare the workers' fabric.toml",
                type="BackendNotServed",
            )
        return adapter


def rejection(error: RequestRejected) -> ApplicationError:
    """Turn a refusal into the failure every door shows: type = first code, details = all."""
    return ApplicationError(
        str(error),
        [problem.as_dict() for problem in error.problems],
        type=error.code,
        non_retryable=True,
    )
