"""What a submission brings along: packed before it is compared, sent before it is started."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from temporal_fabric.artifacts.packing import Packed, pack, send
from temporal_fabric.errors import FabricError, Problem, RequestRejected
from temporal_fabric.flows.requested import with_energy
from temporal_fabric.requests import admit
from temporal_fabric.shapes import is_list, is_table
from temporal_fabric.store import open_objects

if TYPE_CHECKING:
    from collections.abc import Callable

    from temporal_fabric.config import Settings
    from temporal_fabric.handle import ExperimentHandle
    from temporal_fabric.requests.admission import Admission


class Luggage:
    """The working folder and the local inputs of one request.

    Args:
        settings: Where the store is, and how much may be brought.
        progress: Told what is being read and uploaded.
    """

    def __init__(self, settings: Settings, progress: Callable[[str], None] | None = None) -> None:
        self._settings = settings
        self._say = progress or _silent
        self._packed: Packed | None = None

    async def pack(self, admission: Admission) -> Admission:
        """Name by digest what is brought along; nothing is sent yet.

        Raises:
            RequestRejected: something is missing, too large or leads out of its folder.
        """
        admission = admitted_with_energy(admission)
        request = admission.request
        objects = open_objects(self._settings.store)
        limits = self._settings.artifacts
        body = request.to_body()
        self._packed = await asyncio.to_thread(pack, body, limits, objects, self._say)
        return admission if self._packed.empty else admit(self._packed.body)

    async def send(self, workers_store: str = "") -> None:
        """Put it into the store, as far as it is not there.

        Args:
            workers_store: Where a worker said that it looks; empty where none was asked.

        Raises:
            RequestRejected: E_DATA, the workers look elsewhere.
            StoreError: the store is full or out of reach, or a file has just changed.
        """
        packed, own = self._packed, self._settings.store
        if packed is None or packed.empty:
            return
        if workers_store not in {"", own}:
            message = (
                f"would be uploaded to {own}, but the workers' store is {workers_store}: set "
                "'store' (fabric.toml or FABRIC_STORE) here to the workers', where this machine "
                "reaches it, or bring the data by s3:// or https://"
            )
            raise RequestRejected([Problem("E_DATA", packed.at, message)])
        await asyncio.to_thread(send, packed, open_objects(own), self._say)


def admitted_with_energy(admission: Admission) -> Admission:
    """Admit a request anew with what it only names a file of; any other one as it is.

    Raises:
        RequestRejected: the file cannot be read, or what is in it has problems.
    """
    flow = admission.request.payload.flow
    if flow is None or flow.spec is None:
        return admission
    return admit(with_energy(admission.request.to_body()))


async def conflict(handle: ExperimentHandle, known: str, admission: Admission) -> RequestRejected:
    """Return the refusal of an id that belongs to another request, and say what differs."""
    message = (
        f"the id {handle.id!r} is taken by another request{await _difference(handle, admission)}: "
        "choose another id, or submit what was submitted before"
    )
    problem = Problem("E_CONFLICT", "/id", message, actual=admission.digest, allowed=(known,))
    return RequestRejected([problem])


async def _difference(handle: ExperimentHandle, admission: Admission) -> str:
    try:
        before = admit(await handle.body())
    except FabricError:
        return ""
    old, new = before.request.to_body(), admission.request.to_body()
    if old == new | {"workdir": old.get("workdir")}:
        return "; the content of its working folder was another"
    if _without_digests(old) == _without_digests(new):
        return "; the content of an input was another"
    fields = before.field_digests.keys() | admission.field_digests.keys()
    names = [
        f"/{name}"
        for name in sorted(fields)
        if before.field_digests.get(name) != admission.field_digests.get(name)
    ]
    return f", which differs in {', '.join(names)}"


def _without_digests(value: Any) -> Any:
    if is_table(value):
        return {key: _without_digests(item) for key, item in value.items() if key != "sha256"}
    return [_without_digests(item) for item in value] if is_list(value) else value


def _silent(text: str) -> None:
    """Tell nobody."""
