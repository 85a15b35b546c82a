"""What an adapter may be able to do besides its contract; who needs it asks with `isinstance`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Collection

    from temporal_fabric.adapters.contract import AttemptKey, CommandPiece, JobStatus
    from temporal_fabric.requests.models import ExecutionRequest


@runtime_checkable
class Pausing(Protocol):
    """What an adapter has besides, where its jobs can stand still and go on."""

    async def pause(self, key: AttemptKey) -> JobStatus:
        """Let the whole job stand still: no processor time, memory and processes kept.

        The wall limit stands still as well. Idempotent; a job that has ended is returned as
        it is. `Adapter.terminate` ends a paused job like any other.

        Raises:
            TransientBackendError: part of the job does not stand still yet: call again.
        """
        ...

    async def resume(self, key: AttemptKey) -> JobStatus:
        """Let a paused job go on. Idempotent."""
        ...


@runtime_checkable
class Executing(Protocol):
    """What an adapter has besides, where a command can run beside a live payload.

    It runs as the payload does: same isolation and limits, same folder, same variables but for
    those withheld; standard input is empty. It ends with the attempt at the latest, and what
    it uses counts for the attempt.
    """

    async def execute(
        self, key: AttemptKey, command: str, argv: tuple[str, ...], withheld: frozenset[str]
    ) -> None:
        """Start a command; a program that cannot be started is told by `fetch`.

        Args:
            key: The attempt.
            command: Names the command: a repetition must not run it twice.
            argv: Program and arguments.
            withheld: Variables of the payload that it must not get.

        Raises:
            PermanentBackendError: the payload has ended, stands still, or never was.
            TransientBackendError: unknown whether it has begun, or not yet: call again.
        """
        ...

    async def fetch(
        self, key: AttemptKey, command: str, offsets: tuple[int, int], limit_s: float
    ) -> CommandPiece:
        """Return what a command has written beyond these bytes of its output and error.

        Waits for something new, at most ``limit_s`` seconds. What lies before the offsets has
        arrived and may be dropped; from the offsets on a repetition returns the same. While
        nobody fetches a command may have to wait, and after a minute it is ended.

        Raises:
            PermanentBackendError: no such command is known, or any more.
            TransientBackendError: no answer: call again.
        """
        ...

    async def end(self, key: AttemptKey, command: str) -> None:
        """Ask a command to end, and make it a moment later. Idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class Halt:
    """What an emergency stop came to."""

    attempt: AttemptKey | None = None
    """Whose the device was; None where it was nobody's."""

    status: JobStatus | None = None
    """The end of that attempt."""


@runtime_checkable
class Halting(Protocol):
    """What an adapter has besides, where its backend moves things and can be stopped at once."""

    async def halt(self, by: str, why: str) -> Halt:
        """Stop the device at once, whatever it does for whomever; nothing is undone.

        A normal return promises that the device has ended what it performed and is sent
        nothing more: the attempt that had it has ended, and asks a person before anything of
        it goes on. A repetition stops the device again.

        Args:
            by: Who wants it, for the attempt's log.
            why: Their reason; may be empty.

        Raises:
            PermanentBackendError: the device has no command that stops it.
            TransientBackendError: nobody knows whether it has stopped: call again.
        """
        ...


@runtime_checkable
class GivingGpus(Protocol):
    """What an adapter has besides, where it gives whole GPUs of the worker's host.

    `Adapter.submit` reserves them, and waits where others were quicker.
    """

    async def free_gpus(
        self, request: ExecutionRequest, but: Collection[str]
    ) -> tuple[str, ...] | None:
        """Return devices that a request could have now; None where too few are free. No effect.

        Args:
            request: An admitted request that this backend can run.
            but: Devices that are promised to others.

        Raises:
            TransientBackendError: that cannot be said now.
        """
        ...


@runtime_checkable
class Checkpointing(Protocol):
    """What an adapter has besides, where a running payload can be told to save its state."""

    async def checkpoint_signal(self, key: AttemptKey) -> JobStatus:
        """Send the payload the request's checkpoint signal; it goes on.

        A normal return promises that the signal was delivered or that the job has ended, not
        that a checkpoint was written. A repetition sends it again.

        Raises:
            TransientBackendError: unknown whether it was delivered.
        """
        ...


@runtime_checkable
class Ganging(Protocol):
    """What an adapter has besides, where one attempt can be a job of several members.

    `Adapter.submit` starts all members or none, the job ends badly as soon as one member does,
    and `Adapter.terminate` proves that every member has gone.
    """

    @property
    def largest_gang(self) -> int:
        """Members that one job can have."""
        ...
