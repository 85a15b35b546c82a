"""Planted faults: adapters that break one promise each, to try the conformance suite on.

Each wraps an adapter that keeps the contract. ``caught_by`` names the cases of which at least
one has to fail; a suite that lets one pass is no evidence.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from temporal_fabric.adapters.capabilities import Executing
from temporal_fabric.adapters.contract import AttemptKey, JobHandle, JobStatus, Phase
from temporal_fabric.errors import (
    BackendUnknown,
    PermanentBackendError,
    TransientBackendError,
)
from temporal_fabric.testing.around import Around
from temporal_fabric.testing.bench import Bench

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from temporal_fabric.adapters.contract import Adapter, AttemptSpec, CommandPiece
    from temporal_fabric.testing.bench import Fault

_TWIN = 100_000
"""Added to an epoch, it makes a second job of one attempt."""

_GAP_S = 0.2


class Broken(Around):
    """An adapter with one planted fault."""

    caught_by: ClassVar[tuple[str, ...]] = ()

    async def start_twin(self, attempt: AttemptSpec) -> JobHandle:
        """Start the attempt again under a name that the backend does not know."""
        key = replace(attempt.key, epoch=attempt.key.epoch + _TWIN)
        await self.inner.submit(replace(attempt, key=key))
        # It claims to have adopted: only what the payloads have done gives it away.
        return JobHandle(attempt.key, (await self.inner.find(attempt.key)).native_id)


class SubmitsAgain(Broken):
    """Does not adopt: a second submit is a second job."""

    caught_by = ("submit_twice_is_one_job",)

    async def submit(self, attempt: AttemptSpec) -> JobHandle:
        """See `Adapter.submit`."""
        if (await self.inner.find(attempt.key)).phase is Phase.ABSENT:
            return await self.inner.submit(attempt)
        return await self.start_twin(attempt)


class LooksThenStarts(Broken):
    """Looks first and creates later, without a lock: two that look at once both create."""

    caught_by = ("six_racing_submits_are_one_job",)
    _created: ClassVar[set[AttemptKey]] = set()

    async def submit(self, attempt: AttemptSpec) -> JobHandle:
        """See `Adapter.submit`."""
        status = await self.inner.find(attempt.key)
        if status.phase is not Phase.ABSENT:
            return JobHandle(attempt.key, status.native_id)
        await asyncio.sleep(_GAP_S)
        if attempt.key in self._created:
            return await self.start_twin(attempt)
        self._created.add(attempt.key)
        return await self.inner.submit(attempt)


class SaysAbsentForUnknown(Broken):
    """Takes a missing answer for proof that there is no job."""

    caught_by = ("a_backend_that_is_away_is_unknown", "a_look_without_an_answer_is_unknown")

    async def find(self, key: AttemptKey) -> JobStatus:
        """See `Adapter.find`."""
        try:
            return await self.inner.find(key)
        except BackendUnknown:
            return JobStatus(Phase.ABSENT)


class SaysNoJobForUnknown(Broken):
    """Calls a submit without an answer refused for good, though the job may run."""

    caught_by = ("a_submit_without_an_answer_is_adopted",)

    async def submit(self, attempt: AttemptSpec) -> JobHandle:
        """See `Adapter.submit`."""
        try:
            return await self.inner.submit(attempt)
        except TransientBackendError as exc:
            raise PermanentBackendError(str(exc)) from exc


class SucceedsWhenLost(Broken):
    """Makes a success of a job whose end nobody has seen."""

    caught_by = ("a_lost_job_is_no_success",)

    async def find(self, key: AttemptKey) -> JobStatus:
        """See `Adapter.find`."""
        status = await self.inner.find(key)
        if status.phase is Phase.LOST:
            return replace(status, phase=Phase.ENDED, exit_code=0, reason="")
        return status


class TrustsTheExitCode(Broken):
    """Tells the exit code alone: a limit that was reached looks like success."""

    caught_by = ("the_wall_limit_is_told",)

    async def wait(self, handle: JobHandle, limit_s: float) -> JobStatus:
        """See `Adapter.wait`."""
        status = await self.inner.wait(handle, limit_s)
        return replace(status, reason="", oom_kills=0)


class StartsLogsAnew(Broken):
    """Ignores the offset of a log: what was read is read again."""

    caught_by = ("no_line_is_lost_or_doubled",)

    def stream_logs(self, handle: JobHandle, from_offset: int = 0) -> AsyncIterator[bytes]:
        """See `Adapter.stream_logs`."""
        del from_offset
        return self.inner.stream_logs(handle)


class DropsTheLastPiece(Broken):
    """Loses the end of a log."""

    caught_by = ("no_line_is_lost_or_doubled",)

    async def stream_logs(self, handle: JobHandle, from_offset: int = 0) -> AsyncIterator[bytes]:
        """See `Adapter.stream_logs`."""
        last = b""
        async for piece in self.inner.stream_logs(handle, from_offset):
            yield last
            last = piece
        yield last[:-10]


class TerminatesWithoutProof(Broken):
    """Says that a job is gone when it has only been asked to go."""

    caught_by = ("terminated_means_gone",)
    _asked: asyncio.Task[JobStatus] | None = None

    async def terminate(self, key: AttemptKey, grace_s: float) -> JobStatus:
        """See `Adapter.terminate`."""
        status = await self.inner.find(key)
        if status.phase is not Phase.RUNNING or grace_s == 0:
            return await self.inner.terminate(key, grace_s)
        self._asked = asyncio.create_task(self.inner.terminate(key, grace_s))
        return replace(status, phase=Phase.ENDED, reason="SIGNAL")

    async def aclose(self) -> None:
        """See `Adapter.aclose`."""
        if self._asked is not None:
            await self._asked
        await super().aclose()


class SwallowsTheCancel(Broken):
    """Believes that a job it was asked to end will end by itself."""

    caught_by = ("terminated_means_gone", "terminate_gives_its_grace")

    async def terminate(self, key: AttemptKey, grace_s: float) -> JobStatus:
        """See `Adapter.terminate`."""
        if grace_s == 0:
            return await self.inner.terminate(key, grace_s)
        return replace(await self.inner.find(key), phase=Phase.ENDED, reason="SIGNAL")


class ForbidsNothing(Broken):
    """Terminates what it finds; a submit that was under way starts afterwards."""

    caught_by = ("what_was_terminated_first_never_starts",)

    async def terminate(self, key: AttemptKey, grace_s: float) -> JobStatus:
        """See `Adapter.terminate`."""
        status = await self.inner.find(key)
        return status if status.phase is Phase.ABSENT else await super().terminate(key, grace_s)


class ForgetsTheTombstone(Broken):
    """Forgets an attempt so well that it can start again."""

    caught_by = ("what_was_forgotten_never_starts",)
    _forgotten: ClassVar[set[AttemptKey]] = set()

    async def submit(self, attempt: AttemptSpec) -> JobHandle:
        """See `Adapter.submit`."""
        if attempt.key in self._forgotten:
            return await self.start_twin(attempt)
        return await self.inner.submit(attempt)

    async def forget(self, key: AttemptKey) -> None:
        """See `Adapter.forget`."""
        await self.inner.forget(key)
        self._forgotten.add(key)


class IgnoresTheEpoch(Broken):
    """Names a job for its experiment alone: an old epoch ends the new one's job."""

    caught_by = ("attempts_are_not_confused", "a_stale_epoch_is_refused")

    async def submit(self, attempt: AttemptSpec) -> JobHandle:
        """See `Adapter.submit`."""
        return await self.inner.submit(replace(attempt, key=replace(attempt.key, epoch=1)))

    async def wait(self, handle: JobHandle, limit_s: float) -> JobStatus:
        """See `Adapter.wait`."""
        return await self.inner.wait(replace(handle, key=replace(handle.key, epoch=1)), limit_s)

    async def terminate(self, key: AttemptKey, grace_s: float) -> JobStatus:
        """See `Adapter.terminate`."""
        return await self.inner.terminate(replace(key, epoch=1), grace_s)


class LeaksErrors(Broken):
    """Lets an error of its backend's library out, of which nobody knows whether it passes."""

    caught_by = ("a_backend_that_is_away_is_unknown", "garbage_is_unknown")

    async def _pass(self, call: str, work: Any) -> Any:
        try:
            return await super()._pass(call, work)
        except TransientBackendError as exc:
            raise ConnectionError(str(exc)) from exc


class RunsCommandsAgain(Broken):
    """Takes a repeated request for a command as one for another."""

    caught_by = ("a_command_ends_with_its_job",)

    async def execute(
        self, key: AttemptKey, command: str, argv: tuple[str, ...], withheld: frozenset[str]
    ) -> None:
        """See `Executing.execute`."""
        for name in (command, f"{command}-again"):
            await self._executing.execute(key, name, argv, withheld)

    async def fetch(
        self, key: AttemptKey, command: str, offsets: tuple[int, int], limit_s: float
    ) -> CommandPiece:
        """See `Executing.fetch`."""
        return await self._executing.fetch(key, command, offsets, limit_s)

    async def end(self, key: AttemptKey, command: str) -> None:
        """See `Executing.end`."""
        await self._executing.end(key, command)

    @property
    def _executing(self) -> Executing:
        if not isinstance(self.inner, Executing):
            raise PermanentBackendError("the adapter inside runs no commands")
        return self.inner


PLANTED: tuple[type[Broken], ...] = (
    SubmitsAgain,
    LooksThenStarts,
    SaysAbsentForUnknown,
    SaysNoJobForUnknown,
    SucceedsWhenLost,
    TrustsTheExitCode,
    StartsLogsAnew,
    DropsTheLastPiece,
    TerminatesWithoutProof,
    SwallowsTheCancel,
    ForbidsNothing,
    ForgetsTheTombstone,
    IgnoresTheEpoch,
    LeaksErrors,
    RunsCommandsAgain,
)
"""Every planted adapter."""


class PlantedBench(Bench):
    """A bench whose adapters have a planted fault.

    Args:
        bench: Of an adapter that keeps the contract; its owner closes it.
        planted: The fault.
    """

    def __init__(self, bench: Bench, planted: type[Broken]) -> None:
        # Not the base's: folder, ledger and payloads are those of the bench inside.
        self._inside, self._planted = bench, planted
        self.folder, self.variant = bench.folder, bench.variant
        self.ledger = bench.ledger
        self._adapters: list[Adapter] = []
        self._keys: list[AttemptKey] = []

    def make(self) -> Adapter:
        """Return a broken adapter."""
        return self._planted(self._inside.make())

    async def make_faulty(self, call: str, fault: Fault) -> Adapter:
        """Return a broken adapter that meets a fault."""
        return self._planted(await self._inside.make_faulty(call, fault))

    async def lose_jobs(self) -> None:
        """Let the backend lose its jobs."""
        await self._inside.lose_jobs()

    async def settle(self) -> None:
        """End what a case has left behind, by an adapter that is not broken."""
        sound = self._inside.make()
        for key in self._keys:
            for epoch in (key.epoch, key.epoch + _TWIN):
                await sound.terminate(replace(key, epoch=epoch), 0.0)
        for used in [*self._adapters, sound]:
            await used.aclose()
        self._keys, self._adapters = [], []
        await self._inside.settle()
