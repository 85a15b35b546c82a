"""Steps of a laboratory device over SiLA 2, each performed at most once.

A journal on this host says what was sent and what the device answered, so one host drives a
device: a request that is placed on another one would not know what was done. `wait` is what
drives a run; while nobody waits, the device ends the command that it performs and no other
one is sent. See `temporal_fabric.adapters.lab_journal` and `temporal_fabric.adapters.lab_run`.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters.capabilities import Halt
from temporal_fabric.adapters.contract import (
    AttemptKey,
    Inventory,
    JobHandle,
    JobStatus,
    Phase,
    Shortfall,
    Verdict,
)
from temporal_fabric.adapters.lab_claim import Claim
from temporal_fabric.adapters.lab_journal import Journal
from temporal_fabric.adapters.lab_pausing import go_on, stand_still
from temporal_fabric.adapters.lab_protocol import Protocol
from temporal_fabric.adapters.lab_run import LabRun, stoppable
from temporal_fabric.adapters.lab_status import status_of
from temporal_fabric.adapters.sila_device import SilaDevice
from temporal_fabric.adapters.sila_fitting import misfits, plain_shortfalls
from temporal_fabric.adapters.sila_options import read_options
from temporal_fabric.errors import BackendUnknown, PermanentBackendError, TransientBackendError
from temporal_fabric.holes import pieces
from temporal_fabric.workplace import Workplace

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

    from temporal_fabric.adapters.contract import AttemptSpec
    from temporal_fabric.adapters.lab_journal import Standing
    from temporal_fabric.config import BackendConfig, Settings
    from temporal_fabric.requests.models import ExecutionRequest

KIND = "sila"

_LOOK_S = 0.1
_ASK_S = 1.0
"""However short somebody waits, the device has time for an answer."""

_TOLD = 500
"""Characters that are kept of what a person says."""

_PATIENCE_S = 10.0
"""How long another call may hold a journal before this one is to be repeated."""


class SilaLabAdapter:
    """See `temporal_fabric.adapters.contract.Adapter` for the promises."""

    kind = KIND

    def __init__(self, config: BackendConfig, settings: Settings, host: str) -> None:
        self._config = config
        self._runs = settings.runs
        self._name = f"{config.name}@{host}"
        self._options = read_options(config.options, config.name)
        self._folder = settings.home / "lab" / config.name
        self._claim = Claim(self._folder)
        self._device = SilaDevice(self._options)

    def get_name(self) -> str:
        """See `Adapter.get_name`."""
        return self._name

    @property
    def slots(self) -> int:
        """One: a device performs one experiment at a time."""
        return 1

    async def can_fulfill(self, request: ExecutionRequest) -> Verdict:
        """See `Adapter.can_fulfill`."""
        found = list(plain_shortfalls(request, self._options, self._config.labels))
        lab = request.payload.lab
        if lab is None or lab.device != self._options.device:
            return Verdict.of(*found)
        try:
            async with self._asking():
                found += await misfits(lab, await self._device.client())
        except PermanentBackendError as exc:
            found.append(Shortfall(str(exc), "mend it on the worker's host"))
        return Verdict.of(*found)

    async def submit(self, attempt: AttemptSpec) -> JobHandle:
        """See `Adapter.submit`."""
        key, journal = attempt.key, Journal(self._folder, attempt.key)
        async with self._holding(journal):
            known = (await self._read(journal)).attempts.get(key.epoch)
            if known is None or known.plan is None:
                await self._accept(attempt, journal)
            with suppress(TransientBackendError):
                # It is accepted: whoever waits goes on from here.
                await self._go_on(journal, key, once=True)
            return JobHandle(key, await self._native_id(journal, key))

    async def _accept(self, attempt: AttemptSpec, journal: Journal) -> None:
        key, lab = attempt.key, attempt.request.payload.lab
        attempts = (await self._read(journal)).attempts
        if key.epoch in attempts:
            raise PermanentBackendError(f"the attempt was forbidden before it started [key={key}]")
        if any(epoch > key.epoch for epoch in attempts):
            raise PermanentBackendError(f"a later attempt has begun [key={key}]")
        if lab is None:
            raise PermanentBackendError(f"a device performs `lab` payloads only [key={key}]")
        async with self._asking():
            wrong = await misfits(lab, await self._device.client())
        if wrong:
            raise PermanentBackendError("; ".join(shortfall.reason for shortfall in wrong))
        run = f"run {secrets.token_hex(4)} on {self._options.device}"
        await asyncio.to_thread(journal.accept, attempt, lab, run)

    async def find(self, key: AttemptKey) -> JobStatus:
        """See `Adapter.find`."""
        return status_of(await self._read(Journal(self._folder, key)), key.epoch)

    async def get_status(self, handle: JobHandle) -> JobStatus:
        """See `Adapter.get_status`."""
        return await self.find(handle.key)

    async def wait(self, handle: JobHandle, limit_s: float) -> JobStatus:
        """See `Adapter.wait`; it also sends what is next, if nobody else does."""
        key, journal = handle.key, Journal(self._folder, handle.key)
        if (await self.find(key)).phase is Phase.RUNNING:
            async with self._asking():
                await self._device.client()
        deadline = time.monotonic() + limit_s
        while True:
            with journal.held() as mine, suppress(TimeoutError):
                if mine:
                    async with asyncio.timeout(max(_ASK_S, deadline - time.monotonic())):
                        await self._go_on(journal, key)
            standing = await self._read(journal)
            status = status_of(standing, key.epoch)
            if status.phase is not Phase.RUNNING:
                await asyncio.to_thread(self._protocol(key).show, standing)
            if status.phase is not Phase.RUNNING or time.monotonic() >= deadline:
                return status
            await asyncio.sleep(min(_LOOK_S, max(0.0, deadline - time.monotonic())))

    async def _go_on(self, journal: Journal, key: AttemptKey, *, once: bool = False) -> None:
        """Drive the run, if the device is not another one's."""
        if status_of(await self._read(journal), key.epoch).phase is not Phase.RUNNING:
            return
        if await asyncio.to_thread(self._claimed, journal, key):
            await self._drive(journal, key, once=once)

    async def _native_id(self, journal: Journal, key: AttemptKey) -> str:
        return status_of(await self._read(journal), key.epoch).native_id

    def _claimed(self, journal: Journal, key: AttemptKey) -> bool:
        """Claim the device; an attempt that has asked a person leaves it to the next one."""
        if self._claim.take(str(key)):
            return True
        holder = self._claim.holder()
        experiment, _, epoch = holder.rpartition("@")
        if (
            experiment != journal.experiment
            or status_of(journal.read(), int(epoch)).phase is Phase.RUNNING
        ):
            return False
        self._claim.release(holder)
        return self._claim.take(str(key))

    async def _drive(self, journal: Journal, key: AttemptKey, *, once: bool = False) -> None:
        run = LabRun(journal, self._device, self._protocol(key))
        self._device.badge = (await self._read(journal)).badge(journal.experiment)
        try:
            async with self._asking():
                await run.drive(once=once)
        except PermanentBackendError as exc:
            raise BackendUnknown(str(exc)) from exc
        await self._free(journal, key)

    async def stream_logs(self, handle: JobHandle, from_offset: int = 0) -> AsyncIterator[bytes]:
        """See `Adapter.stream_logs`."""
        async for piece in pieces(self._place(handle.key).stdout, from_offset):
            yield piece

    async def terminate(self, key: AttemptKey, grace_s: float) -> JobStatus:
        """See `Adapter.terminate`; the device's own cancel stands for SIGTERM, halt for SIGKILL.

        With a grace, what was done is undone, newest first. Without any the device is halted at
        once and nothing moves any more.
        """
        journal = Journal(self._folder, key)
        status = status_of(await self._read(journal), key.epoch)
        if status.phase in {Phase.ENDED, Phase.LOST}:
            return status
        await asyncio.to_thread(journal.append, "stop", grace_s=grace_s)
        await self._stop_at_once(journal, grace_s)
        async with self._holding(journal):
            await self._drive(journal, key)
            return status_of(await self._read(journal), key.epoch)

    async def _stop_at_once(self, journal: Journal, grace_s: float) -> None:
        """Stop what the device performs, before whoever drives the run lets go of it."""
        standing = await self._read(journal)
        issued = standing.open
        if issued is None or not stoppable(standing, journal.epoch, grace_s):
            return
        with suppress(TransientBackendError, PermanentBackendError):
            async with self._asking():
                if not grace_s and await self._device.halt():
                    return
                await self._device.cancel(issued.uuid)

    async def pause(self, key: AttemptKey) -> JobStatus:
        """See `Pausing.pause`; the present command stands still where the device can do that."""
        return await self._still(key, stand_still)

    async def resume(self, key: AttemptKey) -> JobStatus:
        """See `Pausing.resume`."""
        return await self._still(key, go_on)

    async def _still(
        self, key: AttemptKey, change: Callable[[Journal, SilaDevice], Awaitable[None]]
    ) -> JobStatus:
        journal = Journal(self._folder, key)
        standing = await self._read(journal)
        if status_of(standing, key.epoch).phase is Phase.RUNNING:
            self._device.badge = standing.badge(journal.experiment)
            async with self._asking():
                await change(journal, self._device)
        return status_of(await self._read(journal), key.epoch)

    async def halt(self, by: str, why: str) -> Halt:
        """See `Halting.halt`; the device's own halt, or its cancel of the present command."""
        holder = await asyncio.to_thread(self._claim.holder)
        found = await self._halted(holder, by, why)
        late = await asyncio.to_thread(self._claim.holder)
        return found if late in {"", holder} else await self._halted(late, by, why)

    async def _halted(self, holder: str, by: str, why: str) -> Halt:
        """Stop the device, and the attempt that has it, if any."""
        key = _key(holder)
        if key is None:
            await self._halt_device("")
            return Halt()
        journal, trouble = Journal(self._folder, key), ""
        try:
            await asyncio.to_thread(
                journal.append, "stop", grace_s=0.0, halted_by=by[:_TOLD], why=why[:_TOLD]
            )
        except OSError as exc:  # whatever the disk is like, the device stops
            trouble = str(exc)
        standing = await self._read(journal)
        self._device.badge = standing.badge(journal.experiment)
        await self._halt_device(standing.open.uuid if standing.open is not None else "")
        if trouble:
            text = f"the device was told to stop, but not {key}, which may go on: {trouble}"
            raise TransientBackendError(text)
        async with self._holding(journal):
            await self._drive(journal, key)
            return Halt(key, status_of(await self._read(journal), key.epoch))

    async def _halt_device(self, uuid: str) -> None:
        async with self._asking():
            if not await self._device.halt() and not (uuid and await self._device.cancel(uuid)):
                text = f"{self._options.device} has no command that stops it"
                raise PermanentBackendError(f"{text}: use its own emergency stop")

    async def forget(self, key: AttemptKey) -> None:
        """See `Adapter.forget`; the journal stays, for it is what refuses a late call."""
        journal = Journal(self._folder, key)
        standing = await self._read(journal)
        if status_of(standing, key.epoch).phase is Phase.RUNNING:
            raise TransientBackendError(f"the device still performs it [key={key}]")
        known = standing.attempts.get(key.epoch)
        if known is None or not known.forgotten:
            await asyncio.to_thread(journal.append, "forgotten")
        await self._free(journal, key, answered=True)

    async def inventory(self) -> Inventory:
        """See `Adapter.inventory`."""
        holder = await asyncio.to_thread(self._claim.holder)
        asks = await asyncio.to_thread(self._asks, holder)
        unusable, detail = asks, dict[str, Any]()
        try:
            async with self._asking():
                detail = await self._device.about()
        except PermanentBackendError as exc:
            unusable = str(exc)
        except TransientBackendError as exc:
            unusable = f"{exc}: start the device's SiLA server, or mend its address in fabric.toml"
        return Inventory(
            name=self._name,
            kind=KIND,
            healthy=not unusable,
            slots=self.slots,
            running=1 if holder else 0,
            labels=dict(self._config.labels),
            unusable=unusable,
            detail=detail,
        )

    async def aclose(self) -> None:
        """See `Adapter.aclose`."""
        await self._device.aclose()

    def _asks(self, holder: str) -> str:
        """Return why nothing else may use the device while a person is asked about it."""
        key = _key(holder)
        if key is None or not status_of(Journal(self._folder, key).read(), key.epoch).question:
            return ""
        return (
            f"{key.request_id} waits for a person's answer about this device: "
            "temporal-fabric resolve"
        )

    def _place(self, key: AttemptKey) -> Workplace:
        return Workplace.of(self._runs, key.tenant, key.request_id, key.epoch)

    def _protocol(self, key: AttemptKey) -> Protocol:
        return Protocol(self._place(key), self._options.device)

    async def _free(self, journal: Journal, key: AttemptKey, *, answered: bool = False) -> None:
        """Leave the device to others, unless a person is asked about it."""
        status = status_of(await self._read(journal), key.epoch)
        if status.phase is not Phase.RUNNING and (answered or not status.question):
            if await asyncio.to_thread(self._claim.holder) == str(key):
                self._device.badge = (await self._read(journal)).badge(journal.experiment)
                await self._device.unlock()
            await asyncio.to_thread(self._claim.release, str(key))

    async def _read(self, journal: Journal) -> Standing:
        return await asyncio.to_thread(journal.read)

    @asynccontextmanager
    async def _holding(self, journal: Journal) -> AsyncGenerator[None]:
        """Hold a journal; whoever drives it lets go when they are told to stop."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            with journal.held() as mine:
                if mine:
                    yield
                    return
            if time.monotonic() >= deadline:
                text = f"another worker drives it [experiment={journal.experiment}]: try again"
                raise TransientBackendError(text)
            await asyncio.sleep(_LOOK_S)

    @asynccontextmanager
    async def _asking(self) -> AsyncGenerator[None]:
        """Ask the device; after a missing answer the next call connects anew."""
        try:
            yield
        except TransientBackendError:
            await self._device.drop()
            raise


def _key(holder: str) -> AttemptKey | None:
    """Return the attempt that a claim names, None where it names none."""
    if not holder:
        return None
    tenant, request_id, epoch = holder.split("@")
    return AttemptKey(tenant, request_id, int(epoch))
