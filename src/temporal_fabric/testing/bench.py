"""What the conformance suite needs of a backend, and how it looks at it.

Somebody who writes an adapter writes one `Bench`: how to make their adapter, how a few lines of
Python become a request it accepts, and, where the backend allows it, faults of its transport.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from abc import ABC, abstractmethod
from contextlib import suppress
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from temporal_fabric.adapters.contract import AttemptKey, AttemptSpec
from temporal_fabric.errors import TransientBackendError
from temporal_fabric.requests.models import ExecutionRequest
from temporal_fabric.testing.around import Shim
from temporal_fabric.testing.evidence import EvidenceLedger
from temporal_fabric.workplace import Workplace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from temporal_fabric.adapters.contract import Adapter, JobStatus

T = TypeVar("T")

_PATIENCE_S, _PAUSE_S = 60.0, 0.2

_PRELUDE = """
import json, os, signal, socket, sys, time
def report(event):
    where = os.environ['EVIDENCE']
    host, colon, port = where.rpartition(':')
    family, address = (2, (host, int(port))) if colon else (1, where)
    with socket.socket(family) as s:
        s.connect(address)
        said = {'event': event, 'id': os.environ['FABRIC_REQUEST_ID'],
                'epoch': os.environ['FABRIC_EPOCH']}
        s.sendall(json.dumps(said).encode() + b'\\n')
        s.recv(1)
"""


class Fault(StrEnum):
    """What happens to a call on its way to the backend and back."""

    LOST_REQUEST = "lost_request"
    """The backend never hears of the call."""

    LOST_REPLY = "lost_reply"
    """The backend does what was asked; its answer is lost."""

    LATE_REPLY = "late_reply"
    """The answer comes a second after it was given."""

    GARBAGE = "garbage"
    """The answer is another one each time, and never one that means anything."""

    AWAY = "away"
    """The backend does not answer at all."""


class Violation(AssertionError):
    """An adapter breaks a promise of the contract; the message says which."""


class NotShown(Exception):
    """A promise cannot be tried on this backend; the message says why."""


class NotApplicable(NotShown):
    """An adapter does not make this promise, and says so itself; the message says how."""


def require(kept: object, promise: str) -> None:
    """Raise `Violation` with the promise unless it is kept."""
    if not kept:
        raise Violation(promise)


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Return the answer of a call that is repeated while it is transient, as the fabric does.

    A machine or a device that is slow today makes calls of its own transient.

    Raises:
        TimeoutError: it was transient for a minute.
    """
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            with suppress(TransientBackendError):
                return await call()
            await asyncio.sleep(_PAUSE_S)


class Bench(ABC):
    """Makes adapters of one backend, and attempts whose effects another process counts.

    Args:
        folder: A folder of the test's own; short, because a Unix socket lies in it.
        variant: The way the backend is set up, where there are several; for the report.
        host: An IP address of this machine at which payloads reach the ledger, where they
            cannot see the socket.
    """

    asks_people: bool = False
    """Whether what its jobs do can be neither repeated nor looked up when an answer is lost, as
    a movement of a device. A question to a person is then a right answer, and success is not."""

    answered_here: frozenset[str] = frozenset()
    """Calls that the adapter answers from its own durable record, without its backend: nothing
    can happen to them on the way there."""

    def __init__(self, folder: Path, variant: str = "", host: str = "") -> None:
        self.folder, self.variant = folder, variant
        self.ledger = EvidenceLedger(folder, host)
        self._adapters: list[Adapter] = []
        self._keys: list[AttemptKey] = []

    @property
    def runs(self) -> Path:
        """Folder of all attempts' folders; the adapter is told the same one."""
        return self.folder / "runs"

    @abstractmethod
    def make(self) -> Adapter:
        """Return a new adapter of the same backend, as another worker would make it."""

    async def make_faulty(self, call: str, fault: Fault) -> Adapter:
        """Return a new adapter one of whose calls always meets a fault.

        The default puts the fault round the adapter, which shows how its backend stands a
        repetition. Put it between adapter and backend where you can: that also shows how the
        adapter understands it.

        Args:
            call: Name of the method, such as ``submit``.
            fault: What happens to it.

        Raises:
            NotShown: this fault cannot be had here.
        """
        if fault in {Fault.GARBAGE, Fault.AWAY}:
            raise NotShown(f"this bench has no {fault} between adapter and backend")
        return Shim(self.make(), call, fault)

    async def lose_jobs(self) -> None:
        """Let the backend itself die and come back, in such a way that its jobs are lost.

        Raises:
            NotShown: that does not happen to this backend.
        """
        raise NotShown("this bench cannot make its backend lose a job")

    def body(self, code: str) -> dict[str, Any]:
        """Return the request that runs some Python, without the fields ``id`` and ``tenant``."""
        command = [sys.executable, "-S", "-E", "-c", code]
        env = {"EVIDENCE": str(self.ledger.socket)}
        return {"payload": {"process": {"command": command, "env": env}}}

    def exit_code(self, status: JobStatus) -> int | None:
        """Return the code that a program has exited with, as a status tells it."""
        return status.exit_code

    def spoken(self, key: AttemptKey, log: bytes) -> bytes:
        """Return what a program has written on standard output, of an attempt's whole log."""
        del key
        return log

    def outputs(self, key: AttemptKey) -> dict[str, str]:
        """Return the files that a program has left as outputs, by their names."""
        return {path.name: path.read_text() for path in self.place(key).output.iterdir()}

    def adapter(self) -> Adapter:
        """Return a new adapter, which is closed when its case ends."""
        self._adapters.append(self.make())
        return self._adapters[-1]

    async def faulty(self, call: str, fault: Fault) -> Adapter:
        """Return a new adapter with a fault, which is closed when its case ends."""
        self._adapters.append(await self.make_faulty(call, fault))
        return self._adapters[-1]

    def key(self, epoch: int = 1, *, tenant: str = "default") -> AttemptKey:
        """Return the key of an attempt that nobody has heard of."""
        return self.next_epoch(AttemptKey(tenant, f"c-{secrets.token_hex(6)}", epoch), epoch)

    def next_epoch(self, key: AttemptKey, epoch: int) -> AttemptKey:
        """Return the key of another attempt of the same experiment."""
        found = AttemptKey(key.tenant, key.request_id, epoch)
        self._keys.append(found)
        return found

    def request(self, code: str, **more: Any) -> ExecutionRequest:
        """Return an admitted request that runs some Python, in which `report` reports.

        Args:
            code: The program.
            more: Further top-level fields.
        """
        named = {"id": "conformance", **self.body(_PRELUDE + code), **more}
        return ExecutionRequest.from_mapping(named)

    def attempt(self, key: AttemptKey, code: str, **more: Any) -> AttemptSpec:
        """Return an attempt with its folders, as the fabric hands it to an adapter."""
        place = Workplace.of(self.runs, key.tenant, key.request_id, key.epoch)
        place.create()
        env = place.variables(tenant=key.tenant, request_id=key.request_id, number=1)
        request = self.request(code, **more)
        return AttemptSpec(key, request, place.folder, place.checkpoints, 1, env)

    def place(self, key: AttemptKey) -> Workplace:
        """Return the folders of an attempt."""
        return Workplace.of(self.runs, key.tenant, key.request_id, key.epoch)

    def effects(self, key: AttemptKey, event: str) -> int:
        """Return how often the attempt's payloads have reported an event."""
        return len(self.ledger.lines(id=key.request_id, epoch=str(key.epoch), event=event))

    async def settle(self) -> None:
        """End what a case has left behind: its jobs and its adapters."""
        adapter = self.make()
        for key in self._keys:
            await patiently(partial(adapter.terminate, key, 0.0))
        for used in [*self._adapters, adapter]:
            await used.aclose()
        self._keys, self._adapters = [], []

    async def aclose(self) -> None:
        """End the bench; one that has started a backend ends it before."""
        self.ledger.close()
