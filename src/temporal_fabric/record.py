"""The request record: what the store remembers of a request for good.

Temporal forgets a closed workflow after its retention; the record does not. It is made of
small objects that are each created exclusively and never changed, so any number of writers
on any number of hosts agree without a lock::

    requests/<tenant>/<id>/request.json          the admitted body and its digest
    requests/<tenant>/<id>/epochs/<n>.json       who was granted epoch n
    requests/<tenant>/<id>/starts/<n>.json       epoch n was started, or revoked before it was
    requests/<tenant>/<id>/ends/<n>.json         epoch n is proven to run no more
    requests/<tenant>/<id>/outcomes/<run>.json   how one run of the workflow ended

The highest epoch is the fencing token: an effect under a lower one is refused.

Each question takes one thread, however many objects it looks at: handing an object to a thread
costs about as much as reading it.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from temporal_fabric.clock import now
from temporal_fabric.errors import StaleEpoch, StoreConflict, StoreError
from temporal_fabric.messages import ENDED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from temporal_fabric.store import Store

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Epoch:
    """One allocated epoch.

    ``run_id`` and ``number`` name the grant it was made for, so that a repeated call finds it.
    """

    epoch: int
    run_id: str
    number: int
    backend: str
    at: str
    workflow_id: str = ""
    """The Temporal workflow; a Schedule's differs from tenant and request id."""

    claims: bool = False
    """Whether its attempt claims its start, so that one that never did can be revoked."""


_FIELDS = frozenset(Epoch.__dataclass_fields__)
"""A later version may write more of them."""


class RequestRecord:
    """The record of one request.

    Args:
        store: Where the record lives.
        tenant: The tenant.
        request_id: The request's id within the tenant.
    """

    def __init__(self, store: Store, tenant: str, request_id: str) -> None:
        self._objects = store.objects
        self.tenant = tenant
        self.request_id = request_id
        self.prefix = f"requests/{tenant}/{request_id}"

    async def open(self, digest: str, body: Mapping[str, Any]) -> None:
        """Create the record, or join an equal one.

        Raises:
            StoreConflict: the id is taken by a body with another digest.
            StoreError: the store cannot be reached or is full.
        """
        entry = {
            "schema_version": SCHEMA_VERSION,
            "digest": digest,
            "body": dict(body),
            "at": now(),
        }
        known = await asyncio.to_thread(self._open, entry)
        if known != digest:
            raise StoreConflict(
                f"the id is taken by another request [id={self.tenant}/{self.request_id}, "
                f"recorded={known}, submitted={digest}]: choose another id"
            )

    def _open(self, entry: Mapping[str, Any]) -> str | None:
        if self._objects.create(f"{self.prefix}/request.json", _dump(entry)):
            return str(entry["digest"])
        return self._digest()

    async def digest(self) -> str | None:
        """Return the recorded digest, or None where there is no record."""
        return await asyncio.to_thread(self._digest)

    def _digest(self) -> str | None:
        entry = self._load("request.json")
        return None if entry is None else str(entry["digest"])

    async def body(self, digest: str) -> dict[str, Any]:
        """Return the admitted body.

        Raises:
            StoreError: there is no record, or it holds another digest.
        """
        entry = await asyncio.to_thread(self._load, "request.json")
        if entry is None or entry["digest"] != digest:
            raise StoreError(
                f"the request record is missing or differs [key={self.prefix}, "
                f"digest={digest}]: does every worker use the same 'store'?"
            )
        return dict(entry["body"])

    async def allocate(
        self, run_id: str, number: int, backend: str, *, workflow_id: str = ""
    ) -> Epoch:
        """Allocate the next epoch for one grant; a repeated call returns the same one."""
        return await asyncio.to_thread(self._allocate, run_id, number, backend, workflow_id)

    def _allocate(self, run_id: str, number: int, backend: str, workflow_id: str) -> Epoch:
        while True:
            epochs = self._epochs()
            for known in epochs:
                if (known.run_id, known.number) == (run_id, number):
                    return known
            wanted = Epoch(
                epoch=max((known.epoch for known in epochs), default=0) + 1,
                run_id=run_id,
                number=number,
                backend=backend,
                at=now(),
                workflow_id=workflow_id,
                claims=True,
            )
            if self._objects.create(self._epoch_key(wanted.epoch), _dump(asdict(wanted))):
                return wanted

    async def epochs(self) -> list[Epoch]:
        """Return every allocated epoch, lowest first."""
        return await asyncio.to_thread(self._epochs)

    def _epochs(self) -> list[Epoch]:
        found = [
            Epoch(**{key: value for key, value in entry.items() if key in _FIELDS})
            for name in self._objects.names(f"{self.prefix}/epochs")
            if (entry := self._load(f"epochs/{name}")) is not None
        ]
        return sorted(found, key=lambda known: known.epoch)

    async def require_newest(self, epoch: int, run_id: str) -> None:
        """Refuse an effect under an epoch that is not the newest, or belongs to another run.

        Raises:
            StaleEpoch: a newer epoch was granted, a reset run reuses an old grant, or the
                epoch was settled without its attempt.
        """
        epochs, end = await asyncio.gather(self.epochs(), self.end(epoch))
        self._require_own_end(epoch, end or ENDED)
        newest = epochs[-1] if epochs else None
        if newest is None or newest.epoch != epoch or newest.run_id != run_id:
            held = "none" if newest is None else f"{newest.epoch} of run {newest.run_id}"
            raise StaleEpoch(
                f"the grant is not the newest [id={self.tenant}/{self.request_id}, "
                f"epoch={epoch}, run={run_id}, newest={held}]"
            )

    async def claim_start(self, epoch: int, how: str) -> str:
        """Claim that an epoch is `STARTED`, or `REVOKED`; return which of them stands.

        Raises:
            StoreError: the store cannot be reached or is full, and nothing is known.
        """
        return await asyncio.to_thread(self._first, "starts", epoch, {"how": how})

    async def mark_ended(self, epoch: int, how: str, **more: Any) -> str:
        """Record the proof that nothing of an epoch runs; return the first proof, which stands.

        Args:
            epoch: The epoch.
            how: Where the proof comes from.
            more: What is kept with it.
        """
        return await asyncio.to_thread(self._first, "ends", epoch, {**more, "how": how})

    async def commit(self, epoch: int) -> None:
        """Record that the attempt of an epoch saw its end: from here on its result counts.

        Raises:
            StaleEpoch: the epoch was settled otherwise before.
        """
        self._require_own_end(epoch, await self.mark_ended(epoch, ENDED))

    async def end(self, epoch: int) -> str | None:
        """Return how it is proven that nothing of an epoch runs, or None where it is not."""
        entry = await asyncio.to_thread(self._load, f"ends/{epoch:06d}.json")
        return None if entry is None else str(entry["how"])

    async def ended(self) -> set[int]:
        """Return the epochs that are proven to run no more."""
        names = await asyncio.to_thread(self._objects.names, f"{self.prefix}/ends")
        return {int(name.partition(".")[0]) for name in names}

    async def record_outcome(self, run_id: str, result: Mapping[str, Any]) -> None:
        """Record how a run ended; the first record stands."""
        key = f"{self.prefix}/outcomes/{run_id}.json"
        await asyncio.to_thread(self._objects.create, key, _dump(dict(result)))

    async def outcome(self, run_id: str) -> dict[str, Any] | None:
        """Return how a run ended, or None while it has not."""
        return await asyncio.to_thread(self._load, f"outcomes/{run_id}.json")

    async def last_outcome(self) -> tuple[str, dict[str, Any]] | None:
        """Return run id and result of the run that ended last, or None."""
        return await asyncio.to_thread(self._last_outcome)

    def _last_outcome(self) -> tuple[str, dict[str, Any]] | None:
        found = [
            (name.removesuffix(".json"), entry)
            for name in self._objects.names(f"{self.prefix}/outcomes")
            if (entry := self._load(f"outcomes/{name}")) is not None
        ]
        return max(found, key=lambda item: str(item[1].get("ended_at", "")), default=None)

    def _require_own_end(self, epoch: int, how: str) -> None:
        if how != ENDED:
            raise StaleEpoch(
                f"the epoch was settled without its attempt [id={self.tenant}/"
                f"{self.request_id}, epoch={epoch}, how={how}]"
            )

    def _first(self, kind: str, epoch: int, entry: Mapping[str, Any]) -> str:
        """Create an entry about an epoch, and return ``how`` of the one that came first."""
        name = f"{kind}/{epoch:06d}.json"
        entry = {"epoch": epoch, "at": now()} | dict(entry)
        if self._objects.create(f"{self.prefix}/{name}", _dump(entry)):
            return str(entry["how"])
        known = self._load(name)
        if known is None:
            raise StoreError(
                f"the request record contradicts itself [key={self.prefix}/{name}]: somebody "
                "deletes from the store"
            )
        return str(known["how"])

    def _epoch_key(self, epoch: int) -> str:
        return f"{self.prefix}/epochs/{epoch:06d}.json"

    def _load(self, name: str) -> dict[str, Any] | None:
        data = self._objects.read(f"{self.prefix}/{name}")
        if data is None:
            return None
        try:
            entry = json.loads(data)
        except ValueError as exc:
            raise StoreError(
                f"damaged request record [key={self.prefix}/{name}]: restore it from a backup, "
                "or choose another id"
            ) from exc
        return dict(entry)


def _dump(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry, ensure_ascii=False, sort_keys=True, indent=1).encode() + b"\n"
