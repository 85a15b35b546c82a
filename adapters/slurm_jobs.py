"""Payloads as jobs of a Slurm cluster, over SSH to its login node or through its slurmrestd.

The cluster's own files decide who an attempt belongs to and how it ended, so any worker finds
everything again by the attempt's key: see `slurm_on_node` and `slurm_on_login`. This module only
asks, by the transport that the options choose. Whatever blocks does so in a few threads.
"""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from temporal_fabric.adapters import slurm_container
from temporal_fabric.adapters.contract import (
    AttemptKey,
    CommandPiece,
    Inventory,
    JobHandle,
    JobStatus,
    Phase,
    Shortfall,
    Verdict,
)
from temporal_fabric.adapters.slurm_arrays import Gathering
from temporal_fabric.adapters.slurm_carrying import Carrying
from temporal_fabric.adapters.slurm_commands import Commands
from temporal_fabric.adapters.slurm_files import grown
from temporal_fabric.adapters.slurm_login import LoginNode
from temporal_fabric.adapters.slurm_looks import Looks
from temporal_fabric.adapters.slurm_mounted import MountedSite
from temporal_fabric.adapters.slurm_options import RestOptions, SshOptions, read_options
from temporal_fabric.adapters.slurm_parcels import Counter
from temporal_fabric.adapters.slurm_states import read_seen, status_of
from temporal_fabric.adapters.slurm_transport import PeerRefused, job_name
from temporal_fabric.adapters.slurm_verdict import Site, slurm_verdict
from temporal_fabric.errors import BackendUnknown, TransientBackendError
from temporal_fabric.holes import pieces
from temporal_fabric.states import Reason
from temporal_fabric.workplace import Workplace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from temporal_fabric.adapters.contract import AttemptSpec
    from temporal_fabric.adapters.slurm_states import Seen
    from temporal_fabric.adapters.slurm_transport import Transport
    from temporal_fabric.adapters.slurm_verdict import Partition
    from temporal_fabric.config import BackendConfig, Settings
    from temporal_fabric.requests.models import ExecutionRequest

T = TypeVar("T")

KIND = "slurm"

log = logging.getLogger(__name__)

_KNOWN_S = 60.0
"""How long what was told of the site is taken for true in a verdict."""

_PATIENCE_S = 3.0
"""One call that waits on the login node; it keeps a session busy."""

_FORCE_S = 5.0
"""After its grace a job has so long to end itself before Slurm is told to kill it."""

_PROOF_S = 60.0
_ANSWER_S = 15.0


class SlurmJobsAdapter:
    """See `temporal_fabric.adapters.contract.Adapter` for the promises.

    Raises:
        RequestRejected: the backend's options are wrong; every problem is listed.
    """

    kind = KIND

    def __init__(self, config: BackendConfig, settings: Settings, host: str) -> None:
        self._config, self._settings, self._host = config, settings, host
        self._name = f"{config.name}@{host}"
        self._options = read_options(config.options, config.name)
        self._transport = _transport(self._options, host)
        self._carrying = Carrying(self._transport)
        self._threads = ThreadPoolExecutor(self._options.sessions + 2, "slurm")
        self._looks = Looks(lambda names: self._ask("look", names=names))
        self._commands = Commands(self._ask)
        self._counter = Counter(self._transport, self._carrying, self._options)
        self._gathering = Gathering(
            *_arrays(self._options),
            partial(self._call, self._counter.alone),
            partial(self._call, self._counter.together),
        )
        self._site: Site | None = None
        self._asked_at, self._refused = -_KNOWN_S, ""
        self._asking = asyncio.Lock()

    def get_name(self) -> str:
        """See `Adapter.get_name`."""
        return self._name

    @property
    def slots(self) -> int | None:
        """None unless configured: Slurm has a queue of its own."""
        return self._config.slots

    @property
    def largest_gang(self) -> int:
        """See `Ganging.largest_gang`."""
        known = self._partitions()
        return sum(found.nodes * found.cpus for found in known) or 1

    async def can_fulfill(self, request: ExecutionRequest) -> Verdict:
        """See `Adapter.can_fulfill`; a site that does not answer is judged by what is known."""
        refused = await self._look_around()
        verdict = slurm_verdict(request, self._config.labels, self._partitions(), self._options)
        if not refused:
            return verdict
        change = f"pin the right key in [backends.{self._config.name}.options] in fabric.toml"
        return Verdict.of(*verdict.shortfalls, Shortfall(refused, change, "E_HOSTKEY"))

    async def submit(self, attempt: AttemptSpec) -> JobHandle:
        """See `Adapter.submit`."""
        name = job_name(self._host, attempt.key)
        with self._gathering.coming():
            site = await self._known_site()
            parcel = await self._call(self._counter.pack, attempt, name, site)
        found = parcel.id or await self._gathering.submit(parcel, site.largest_array)
        return JobHandle(attempt.key, f"job {found}")

    async def find(self, key: AttemptKey) -> JobStatus:
        """See `Adapter.find`."""
        return status_of(await self._looks.at(job_name(self._host, key)))

    async def get_status(self, handle: JobHandle) -> JobStatus:
        """See `Adapter.get_status`."""
        return await self.find(handle.key)

    async def wait(self, handle: JobHandle, limit_s: float) -> JobStatus:
        """See `Adapter.wait`."""
        name, deadline = job_name(self._host, handle.key), time.monotonic() + limit_s
        while True:
            seen = await self._looks.at(name)
            status = status_of(seen)
            await self._carry(handle.key, seen)
            if status.phase is not Phase.RUNNING:
                return await self._call(self._gather, handle.key, seen, status)
            left = deadline - time.monotonic()
            if left <= 0:
                return status
            await asyncio.sleep(min(self._options.poll_s, left))

    async def _carry(self, key: AttemptKey, seen: Seen) -> None:
        """Bring over what the payload has written since the last look."""
        place = self._place(key)
        if seen.folder and grown(place.folder, seen.sizes):
            await self._call(self._carrying.grow, place, seen)

    def _place(self, key: AttemptKey) -> Workplace:
        return Workplace.of(self._settings.runs, key.tenant, key.request_id, key.epoch)

    def _gather(self, key: AttemptKey, seen: Seen, status: JobStatus) -> JobStatus:
        """Bring over outputs and checkpoints of a job that has ended."""
        if not seen.folder or status.phase is Phase.ABSENT:
            return status
        message = self._carrying.gather(job_name(self._host, key), self._place(key), seen)
        if not message:
            return status
        return replace(status, reason=status.reason or Reason.BUDGET, message=message)

    async def stream_logs(self, handle: JobHandle, from_offset: int = 0) -> AsyncIterator[bytes]:
        """See `Adapter.stream_logs`."""
        key = handle.key
        await self._carry(key, await self._looks.at(job_name(self._host, key)))
        async for piece in pieces(self._place(key).stdout, from_offset):
            yield piece

    async def terminate(self, key: AttemptKey, grace_s: float) -> JobStatus:
        """See `Adapter.terminate`."""
        name, deadline = job_name(self._host, key), time.monotonic() + grace_s + _PROOF_S
        asked = {"name": name, "grace_s": grace_s, "force_s": _FORCE_S, "patience_s": _PATIENCE_S}
        while True:
            seen = read_seen(await self._ask("stop", longer_s=_PATIENCE_S, **asked))
            status = status_of(seen)
            if status.phase is not Phase.RUNNING:
                break
            if time.monotonic() > deadline:
                raise TransientBackendError(f"Slurm has not ended it yet [job={seen.id}]")
            await asyncio.sleep(min(self._options.poll_s, 1.0))
        try:
            await self._carry(key, seen)
        except TransientBackendError as exc:
            # The proof is what counts; the end of a log is worth a line.
            log.warning("the logs of %s could not be brought over: %s", key, exc)
        return status

    async def pause(self, key: AttemptKey) -> JobStatus:
        """See `Pausing.pause`; Slurm's own time limit goes on."""
        return await self._control(key, "pause")

    async def resume(self, key: AttemptKey) -> JobStatus:
        """See `Pausing.resume`."""
        return await self._control(key, "resume")

    async def _control(self, key: AttemptKey, action: str) -> JobStatus:
        asked = {"name": job_name(self._host, key), "control": {"action": action}}
        told = await self._ask("control", longer_s=_ANSWER_S, patience_s=_ANSWER_S, **asked)
        status = status_of(read_seen(told))
        if status.phase is Phase.RUNNING and status.paused is not (action == "pause"):
            raise TransientBackendError(f"the job has not begun, or changes its state [job={key}]")
        return status

    async def execute(
        self, key: AttemptKey, command: str, argv: tuple[str, ...], withheld: frozenset[str]
    ) -> None:
        """See `Executing.execute`."""
        await self._commands.execute(job_name(self._host, key), command, argv, withheld)

    async def fetch(
        self, key: AttemptKey, command: str, offsets: tuple[int, int], limit_s: float
    ) -> CommandPiece:
        """See `Executing.fetch`."""
        return await self._commands.fetch(job_name(self._host, key), command, offsets, limit_s)

    async def end(self, key: AttemptKey, command: str) -> None:
        """See `Executing.end`."""
        await self._commands.end(job_name(self._host, key), command)

    async def forget(self, key: AttemptKey) -> None:
        """See `Adapter.forget`."""
        await self._ask("forget", name=job_name(self._host, key))

    async def inventory(self) -> Inventory:
        """See `Adapter.inventory`."""
        told, site = await self._greet()
        way, known = await self._call(lambda: self._transport.about), site.partitions
        up = [found for found in known if found.up]
        return Inventory(
            name=self._name,
            kind=KIND,
            healthy=bool(up),
            slots=self._config.slots or sum(found.nodes * found.cpus for found in up),
            running=int(told["running"]),
            labels=dict(self._config.labels),
            unusable="" if up else "no partition for its jobs is up: set the option 'partition'",
            about={
                "version": told["slurm"],
                **way,
                "partitions": " ".join(found.name for found in up),
                **({"containers": self._options.runtime} if self._options.runtime else {}),
            },
            warnings=tuple(str(text) for text in told["lacking"]),
            detail={name: told[name] for name in ("slurm", "host", "base", "partitions")},
        )

    async def aclose(self) -> None:
        """See `Adapter.aclose`."""
        await self._gathering.aclose()
        await self._looks.aclose()
        self._transport.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _look_around(self) -> str:
        """Ask what the site has, unless that was asked a moment ago; return why it is refused."""
        async with self._asking:
            if time.monotonic() - self._asked_at < _KNOWN_S:
                return self._refused
            refused = ""
            try:
                await self._greet()
            except PeerRefused as exc:
                refused = str(exc)
            except TransientBackendError as exc:
                log.warning("%s cannot be asked: %s", self._name, exc)
            self._asked_at, self._refused = time.monotonic(), refused
            return refused

    async def _known_site(self) -> Site:
        async with self._asking:
            return self._site or (await self._greet())[1]

    async def _greet(self) -> tuple[dict[str, Any], Site]:
        told, site = await self._call(self._hello)
        self._site, self._asked_at, self._refused = site, time.monotonic(), ""
        return told, site

    def _hello(self) -> tuple[dict[str, Any], Site]:
        told = self._transport.ask("hello", **slurm_container.needs(self._options))
        return told, Site.read(told, self._options.partition)

    def _partitions(self) -> list[Partition]:
        return self._site.partitions if self._site is not None else []

    async def _ask(self, verb: str, **asked: Any) -> Any:
        return await self._call(partial(self._transport.ask, verb, **asked))

    async def _call(self, work: Callable[..., T], *args: Any) -> T:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, work, *args)
        except (KeyError, TypeError, ValueError) as exc:
            raise BackendUnknown(f"the site's answer means nothing: {exc!r}") from exc


def _transport(options: SshOptions | RestOptions, host: str) -> Transport:
    if isinstance(options, RestOptions):
        return MountedSite(options, host)
    return LoginNode(options, host)


def _arrays(options: SshOptions | RestOptions) -> tuple[int, float]:
    """Return how many become an array, and how long they may wait; slurmrestd takes none."""
    if isinstance(options, RestOptions):
        return (0, 0.0)
    return (options.array_min, options.array_wait_s)
