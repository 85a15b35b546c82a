"""The worker of one host: from settings to queues, activities and a clean end."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from temporalio.worker import Worker

from temporal_fabric import attributes, names
from temporal_fabric.activities.abandoned import watch
from temporal_fabric.connection import asking, connect
from temporal_fabric.errors import HostLockHeld
from temporal_fabric.plugin import FabricPlugin
from temporal_fabric.store import local_path, probe

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from temporalio.client import Client

    from temporal_fabric.activities.desk import Desk
    from temporal_fabric.config import Settings

log = logging.getLogger(__name__)

_THREADS = 32
_LOCK_PATIENCE_S = 10.0
"""A supervisor restarts a worker at once; its predecessor may still be draining."""


async def serve(
    settings: Settings,
    *,
    stop: asyncio.Event,
    ready: Callable[[dict[str, Any]], None] | None = None,
    address: str | None = None,
    namespace: str | None = None,
) -> None:
    """Run this host's workers until ``stop`` is set, then detach from what runs.

    Payloads outlive the worker: the next one adopts them.

    Args:
        settings: What the fabric is told.
        stop: Set it to shut down.
        ready: Called once with a description when every queue is polled.
        address: Temporal address that wins over the environment.
        namespace: Temporal namespace that wins over the environment.

    Raises:
        HostLockHeld: another worker serves this host.
        StoreError: the store is elsewhere and does not do what the fabric needs.
        ServerUnavailable: no server answers.
        AccessDenied: it refuses this worker's credential, at the start or later.
    """
    # The default has a few threads for each core; ours mostly wait for the disk.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS, "fabric"))
    plugin = FabricPlugin(settings)
    client = await connect(settings, address=address, namespace=namespace, plugins=[plugin])
    with _host_lock(settings) as lock, asking():
        await lock()
        if local_path(plugin.desk.store.root) is None:
            # A server that lets two writers own one name would break every promise below.
            await asyncio.to_thread(probe, plugin.desk.store.objects)
        plugin.desk.search_attributes = await attributes.register(client)
        await _at_desk(plugin.desk, client, stop, ready or (lambda _: None))


async def _at_desk(
    desk: Desk, client: Client, stop: asyncio.Event, ready: Callable[[dict[str, Any]], None]
) -> None:
    """Take from every queue of a host until told to stop; see `serve`."""
    queues = [
        names.QUEUE,
        *(names.pool_queue(pool) for pool in desk.settings.pools),
        names.host_queue(desk.host),
        *(names.backend_queue(backend) for backend in desk.backends),
    ]
    async with AsyncExitStack() as stack:
        stack.push_async_callback(desk.aclose)
        metrics = stack.enter_context(desk.observer.serving(desk.places))
        workers = [Worker(client, task_queue=queue) for queue in queues]
        sweeping = asyncio.create_task(watch(desk, client))
        stack.callback(sweeping.cancel)
        about = {"host": desk.host, "queues": queues, "backends": list(desk.backends)}
        ready(about | {"metrics": metrics})
        await _poll(workers, stop)


async def _poll(workers: Sequence[Worker], stop: asyncio.Event) -> None:
    """Run the workers until told to stop or one of them fails, then end all of them.

    Not as nested contexts: several workers fail together when the server refuses them, and
    each failure would cancel the task in which another one is being shut down.

    Raises:
        Exception: the first failure of a worker.
    """
    runs = [asyncio.create_task(worker.run()) for worker in workers]
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([stopping, *runs], return_when=asyncio.FIRST_COMPLETED)
        log.info("detaching: payloads go on without this worker")
        await asyncio.gather(*(worker.shutdown() for worker in workers))
        await asyncio.gather(*runs)
    finally:
        for task in (stopping, *runs):
            task.cancel()


@contextmanager
def _host_lock(settings: Settings) -> Generator[Callable[[], Any]]:
    """Yield a coroutine that takes the host lock: a local backend has one worker at a time."""
    settings.home.mkdir(parents=True, exist_ok=True)
    path = settings.worker_lock
    with path.open("a+") as file:

        async def take() -> None:
            loop = asyncio.get_running_loop()
            deadline = loop.time() + _LOCK_PATIENCE_S
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as exc:
                    if loop.time() > deadline:
                        raise HostLockHeld(_held(path)) from exc
                await asyncio.sleep(0.2)
            file.truncate(0)
            file.write(json.dumps({"pid": os.getpid()}) + "\n")
            file.flush()

        yield take


def _held(path: Any) -> str:
    owner = path.read_text().strip() or "unknown"
    return (
        f"another worker serves this host [lock={path}, owner={owner}]: stop it first, or give "
        "this one a FABRIC_HOME of its own"
    )
