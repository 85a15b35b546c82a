"""Whole GPUs of the worker's host for a backend that runs payloads there.

What is asked for is compared with what the driver shows, and reserved before a payload starts:
see `temporal_fabric.gpus.reservations`. Every function but `HostGpus.reserve` blocks.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temporal_fabric import durable
from temporal_fabric.adapters.contract import Shortfall
from temporal_fabric.clock import now
from temporal_fabric.errors import TransientBackendError
from temporal_fabric.gpus import discovery
from temporal_fabric.gpus.devices import Device, Found, asked_of, chosen
from temporal_fabric.gpus.record import RECORD
from temporal_fabric.gpus.reservations import Reservation, Reservations
from temporal_fabric.launcher.syscalls import boot_id

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from temporal_fabric.adapters.contract import AttemptKey, AttemptSpec
    from temporal_fabric.requests.models import ExecutionRequest
    from temporal_fabric.requests.resources import Gpu

ALL = ("all",)
"""An owner's list that leaves nothing out."""

FREE = "free"
_LOOK_S = 1.0
_COMMON = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset")
"""Device files that every GPU needs beside its own."""


def _never(_: str) -> bool:
    return False


class HostGpus:
    """The devices that one backend can give.

    Args:
        backend: Its instance name.
        only: What its owner lists: UUIDs or indices, or `ALL`.
        launcher: Folder of the launcher that runs its payloads, where one does.
        ended: Otherwise says whether nothing of an attempt runs any more.
        unseen: Whether what is listed counts also where no driver can be asked about it.
    """

    def __init__(
        self,
        backend: str,
        only: tuple[str, ...] = ALL,
        *,
        launcher: str = "",
        ended: Callable[[str], bool] = _never,
        unseen: bool = False,
    ) -> None:
        self._backend, self._only, self._unseen = backend, only, unseen
        self._launcher, self._ended = launcher, ended
        self._reservations = Reservations()

    def find(self) -> Found:
        """Return the devices that the owner lists, as the driver shows them now."""
        if not self._only:
            return Found(none="its owner lists none (option 'gpus')")
        found = discovery.find()
        if self._only == ALL:
            return found
        if not found.devices and self._unseen:
            return Found(tuple(Device(name) for name in self._only))
        listed = tuple(d for d in found.devices if {d.id, str(d.index)} & set(self._only))
        why = found.none or f"none of the listed devices is here: {', '.join(self._only)}"
        return Found(listed, "" if listed else why)

    def labels(self, request: ExecutionRequest) -> dict[str, Any]:
        """Return the facts that a request's constraints name; only then is the driver asked."""
        named = any("gpu" in text for text in request.requirements.constraints)
        return self.find().facts() if named else {}

    def lacking(self, request: ExecutionRequest) -> Iterator[Shortfall]:
        """Yield what of the devices asked for this host could never give."""
        asked = asked_of(request)
        if not asked:
            return
        found, lacks = self.find(), list[Shortfall]()
        for place, entry in enumerate(request.requirements.resources):
            if entry.type == "gpu" and entry.count:
                lacks += _lacking(entry, f"/requirements/resources/{place}", found)
        if not lacks and chosen(asked, found.devices) is None:
            count = sum(entry.count for entry in asked)
            lacks.append(
                Shortfall(
                    f"needs {count} devices of type 'gpu' in all, has {len(found.devices)}",
                    "ask for fewer in /requirements/resources",
                )
            )
        if not lacks and (why := self._reservations.usable()):
            what, _, change = why.rpartition(": ")
            lacks.append(Shortfall(what, change))
        yield from lacks

    def free(self, request: ExecutionRequest, but: Collection[str] = ()) -> tuple[str, ...] | None:
        """Return devices that a request could have now, None where too few are free.

        Args:
            request: An admitted request.
            but: Devices that are promised to others.

        Raises:
            TransientBackendError: nothing can be reserved on this host.
        """
        found = self.find()
        with self._reservations.locked() as held:
            free = [device for device in self._free(found, held) if device.id not in but]
        got = chosen(asked_of(request), free)
        return None if got is None else tuple(device.id for device in got)

    async def reserve(self, attempt: AttemptSpec) -> tuple[Device, ...]:
        """Reserve what an attempt asks for, and wait where others were quicker.

        A repetition returns the same devices. They are noted in the attempt's folder.

        Raises:
            TransientBackendError: nothing can be reserved on this host.
            OSError: the attempt's folder cannot be written.
        """
        asked = asked_of(attempt.request)
        if not asked:
            return ()
        while (got := await asyncio.to_thread(self._take, attempt.key, asked)) is None:
            count = sum(entry.count for entry in asked)
            attempt.say(f"waits for {count} GPU{'s' * (count > 1)} of this host: others have them")
            await asyncio.sleep(_LOOK_S)
        note = json.dumps([{"id": device.id, "name": device.name} for device in got])
        await asyncio.to_thread(durable.replace, attempt.folder / RECORD, note.encode())
        return got

    def release(self, key: AttemptKey) -> None:
        """Give back what an attempt had, of which nothing runs any more. Idempotent."""
        if not self._of(str(key), self._reservations.all()):
            return
        with self._reservations.locked() as held:
            self._reservations.remove(self._of(str(key), held))

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the facts; and for people every device with who has it, or why there is none."""
        found = self.find()
        held = {id_: r for id_, r in self._reservations.all().items() if not self._is_over(r)}
        rows = [
            {
                "id": device.id,
                "name": device.name,
                "memory_bytes": device.memory_bytes,
                "state": _state(device, held.get(device.id)),
            }
            for device in found.devices
        ]
        return (found.facts(), {"gpus": rows, "no_gpus": found.none if self._only else ""})

    def _take(self, key: AttemptKey, asked: tuple[Gpu, ...]) -> tuple[Device, ...] | None:
        found, count = self.find(), sum(entry.count for entry in asked)
        with self._reservations.locked() as held:
            mine = self._of(str(key), held)
            if len(mine) == count:
                known = {device.id: device for device in found.devices}
                return tuple(known.get(id_) or Device(id_) for id_ in mine)
            # Fewer are of a worker that died while it noted them: nothing was started.
            self._reservations.remove(mine)
            got = chosen(asked, self._free(found, {i: r for i, r in held.items() if i not in mine}))
            for device in got or ():
                self._reservations.put(
                    Reservation(
                        device.id, self._backend, str(key), now(), boot_id(), self._launcher
                    )
                )
        return got

    def _free(self, found: Found, held: dict[str, Reservation]) -> list[Device]:
        """Return the devices that nobody has; drops the reservations that are over."""
        over = [id_ for id_, reservation in held.items() if self._is_over(reservation)]
        self._reservations.remove(over)
        taken = held.keys() - set(over)
        return [d for d in found.devices if d.id not in taken and not d.unfit and not d.processes]

    def _is_over(self, held: Reservation) -> bool:
        if held.is_over():
            return True
        try:
            return held.backend == self._backend and self._ended(held.key)
        except TransientBackendError:
            return False

    def _of(self, key: str, held: dict[str, Reservation]) -> list[str]:
        return [i for i, r in held.items() if (r.backend, r.key) == (self._backend, key)]


def variables(devices: tuple[Device, ...]) -> dict[str, str]:
    """Return what lets a process of the host see these devices alone; none hides all of them."""
    ids = ",".join(device.id for device in devices)
    return {"CUDA_VISIBLE_DEVICES": ids, "NVIDIA_VISIBLE_DEVICES": ids or "void"}


def device_files(devices: tuple[Device, ...]) -> tuple[Path, ...]:
    """Return the files through which these devices are used."""
    own = [f"nvidia{device.minor}" for device in devices if device.minor is not None]
    return tuple(Path("/dev", name) for name in (*own, *_COMMON)) if own else ()


def _state(device: Device, held: Reservation | None) -> str:
    if device.unfit:
        return f"not given: {device.unfit}"
    if held is not None:
        return f"reserved for {held.key} on {held.backend} since {held.since}"
    if device.processes:
        return f"busy: used by others (process {', '.join(map(str, device.processes))})"
    return FREE


def _lacking(asked: Gpu, at: str, found: Found) -> Iterator[Shortfall]:
    usable = [device for device in found.devices if not device.unfit]
    fitting = [device for device in usable if device.meets(asked)]
    unfit = "; ".join(f"{d.id} is not given: {d.unfit}" for d in found.devices if d.unfit)
    if len(fitting) >= asked.count:
        return
    if not usable:
        why = found.none or unfit
        yield Shortfall(f"needs a resource of type 'gpu', has none: {why}", f"drop {at}")
    elif fitting:
        kind = "" if len(fitting) == len(usable) else " that fit"
        text = f"needs {asked.count} devices of type 'gpu', has {len(fitting)}{kind}"
        yield Shortfall(f"{text}; {unfit}" if unfit else text, f"set {at}/count to {len(fitting)}")
    else:
        wanted = [f"model {asked.model!r}"] if asked.model is not None else []
        wanted += [f"{asked.memory_gb:g} GB"] if asked.memory_gb is not None else []
        names = ("model", "memory_gb")
        drop = " and ".join(f"{at}/{name}" for name in names if getattr(asked, name) is not None)
        there = ", ".join(sorted({_described(device) for device in usable}))
        text = f"needs a device of type 'gpu' with {' and '.join(wanted)}, has: {there}"
        yield Shortfall(text, f"drop {drop}, or name one of these")


def _described(device: Device) -> str:
    size = device.memory_bytes
    memory = "" if size is None else f" ({size / 1e9:.1f} GB)"
    return f"{device.name or device.id}{memory}"
