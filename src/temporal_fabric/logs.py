"""Reading a payload's output: from the host while it runs, from the capsule afterwards."""

from __future__ import annotations

import asyncio
import base64
from contextlib import ExitStack
from typing import TYPE_CHECKING, BinaryIO, Protocol

from temporal_fabric.cancelling import check_cancelled
from temporal_fabric.capsule.reading import Capsule
from temporal_fabric.errors import CapsuleError, ServerUnavailable, StoreError
from temporal_fabric.holes import read_on
from temporal_fabric.messages import ReadInput
from temporal_fabric.store import local_path
from temporal_fabric.workplace import Workplace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from temporal_fabric.config import Settings
    from temporal_fabric.messages import ReadAnswer
    from temporal_fabric.status import ExperimentStatus

_POLL_S = 0.3
_CHUNK = 64 * 1024


class Watched(Protocol):
    """An experiment that can be asked about: `temporal_fabric.ExperimentHandle` is one."""

    async def status(self, *, detail: bool = True) -> ExperimentStatus:
        """See `ExperimentHandle.status`."""
        ...

    async def next_status(self, *, detail: bool = False) -> ExperimentStatus:
        """See `ExperimentHandle.next_status`."""
        ...

    async def read(self, backend: str, asked: ReadInput) -> ReadAnswer:
        """See `ExperimentHandle.read`."""
        ...


async def read_logs(
    handle: Watched, settings: Settings, *, stream: str = "stdout", follow: bool = False
) -> AsyncIterator[bytes]:
    """Yield a payload's output, attempt after attempt.

    Args:
        handle: The experiment.
        settings: Where this host keeps its working folders.
        stream: ``stdout`` or ``stderr``.
        follow: Go on until the experiment ends.

    Raises:
        ExperimentNotFound: there is no such experiment.
    """
    name = f"{stream}.log"
    with ExitStack() as files:
        opened: dict[int, BinaryIO] = {}
        offsets: dict[int, int] = {}
        while True:
            check_cancelled()
            status = await (handle.next_status() if follow else handle.status(detail=False))
            for epoch in _epochs(settings, status):
                if epoch not in opened and (path := _find(settings, status, epoch, name)):
                    # An open file stays readable when the seal moves it into the capsule.
                    opened[epoch] = files.enter_context(path.open("rb"))
                while epoch in opened:
                    at = offsets.get(epoch, 0)
                    chunk, offsets[epoch] = read_on(opened[epoch].fileno(), at, _CHUNK)
                    if not chunk:
                        break
                    yield chunk
            if not opened and status.backend and not is_here(settings, status):
                sealed = await asyncio.to_thread(reachable, status)
                afar = _from_afar(handle, stream, follow=follow)
                async for piece in afar if sealed is None else _from_capsule(sealed, name):
                    yield piece
                return
            if status.final or not follow:
                return
            await asyncio.sleep(_POLL_S)


def is_here(settings: Settings, status: ExperimentStatus) -> bool:
    """Say whether this host runs the experiment, or can open its capsule."""
    capsule = local_path(status.capsule) if status.capsule else None
    root = Workplace.of(settings.runs, status.tenant, status.request_id, 0).root
    return root.is_dir() or (capsule is not None and capsule.is_dir())


def reachable(status: ExperimentStatus) -> Capsule | None:
    """Return the capsule of an experiment that has ended, if it is in reach."""
    try:
        return Capsule.open(status.capsule) if status.final and status.capsule else None
    except (CapsuleError, StoreError):
        return None


async def _from_capsule(capsule: Capsule, name: str) -> AsyncIterator[bytes]:
    logs = [entry.path for entry in capsule.manifest.files if entry.path.startswith("logs/")]
    epochs = sorted(int(path.split("/")[1]) for path in logs if path.endswith(f"/{name}"))
    for epoch in epochs:
        chunks = capsule.objects.chunks(f"logs/{epoch}/{name}")
        while chunk := await asyncio.to_thread(next, chunks, b""):
            yield chunk


async def _from_afar(handle: Watched, stream: str, *, follow: bool) -> AsyncIterator[bytes]:
    """Yield the output of the newest attempt through its host's worker."""
    offset, epoch = 0, 0
    while True:
        check_cancelled()
        status = await (handle.next_status(detail=True) if follow else handle.status())
        # Without a worker the status does not know the epoch; that is no new attempt.
        if status.epoch and status.epoch != epoch:
            offset, epoch = 0, status.epoch
        if epoch:
            wait = follow and not status.final
            asked = ReadInput(status.tenant, status.request_id, epoch, stream, offset, wait)
            try:
                answer = await handle.read(status.backend, asked)
            except ServerUnavailable:
                if not wait:
                    raise
                await asyncio.sleep(_POLL_S)
                continue
            offset = answer.next_offset
            if answer.data:
                yield base64.b64decode(answer.data)
                continue
        if status.final or not follow:
            return


def _epochs(settings: Settings, status: ExperimentStatus) -> list[int]:
    """Return the epochs whose output lies on this host or in the capsule."""
    places = [Workplace.of(settings.runs, status.tenant, status.request_id, 0).root]
    capsule = local_path(status.capsule) if status.capsule else None
    if capsule is not None:
        places.append(capsule / "logs")
    folders = [path for place in places if place.is_dir() for path in place.iterdir()]
    return sorted({int(path.name) for path in folders if path.name.isdecimal()})


def _find(settings: Settings, status: ExperimentStatus, epoch: int, name: str) -> Path | None:
    place = Workplace.of(settings.runs, status.tenant, status.request_id, epoch)
    places = [place.folder / name]
    capsule = local_path(status.capsule) if status.capsule else None
    if capsule is not None:
        places.append(capsule / "logs" / str(epoch) / name)
    return next((path for path in places if path.is_file()), None)
