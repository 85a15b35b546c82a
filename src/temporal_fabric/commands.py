"""Running a command beside a live payload, through its backend's queue, piece by piece."""

from __future__ import annotations

import asyncio
import base64
import secrets
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from temporal_fabric import names
from temporal_fabric.cancelling import check_cancelled
from temporal_fabric.errors import FabricError, Problem, RequestRejected, ServerUnavailable
from temporal_fabric.host_calls import ask_backend
from temporal_fabric.states import State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from temporalio.client import Client

    from temporal_fabric.status import ExperimentStatus

_AWAY_S = 50.0
"""A command whose reader has gone for a minute is ended."""

_LAST_WORD_S = 10.0
_LIVE = frozenset({State.RUNNING, State.PAUSED})


@dataclass(frozen=True, slots=True)
class CommandInput:
    """Start a command where it is not known, and ask for the next piece of its output."""

    tenant: str
    request_id: str
    epoch: int
    backend: str
    command: str
    """Names the command: the same name is never run twice."""

    argv: list[str] = field(default_factory=list[str])
    """What to run; empty for a command that was begun before."""

    offsets: list[int] = field(default_factory=lambda: [0, 0])
    """Bytes of standard output and error that have arrived."""

    end: bool = False
    """Whether it shall end."""


@dataclass(frozen=True, slots=True)
class CommandAnswer:
    """The next piece of a command's output."""

    stdout: str = ""
    """Base64, secrets hidden."""

    stderr: str = ""
    offsets: list[int] = field(default_factory=lambda: [0, 0])
    """What to ask for next; hidden secrets make it differ from what has arrived."""

    ended: bool = False
    exit_code: int | None = None
    signal: int | None = None
    error: str = ""
    """Why it did not start."""


@dataclass(frozen=True, slots=True)
class CommandEnd:
    """How a command ended."""

    exit_code: int | None = None
    signal: int | None = None
    error: str = ""
    """Why it did not start."""


async def run_command(
    client: Client,
    status: ExperimentStatus,
    argv: Sequence[str],
    write: Callable[[str, bytes], object],
) -> CommandEnd:
    """Run a command beside an experiment's payload; see `ExperimentHandle.execute`."""
    if status.state not in _LIVE or not status.epoch:
        why = "has ended" if status.final else "has no running payload"
        message = f"{status.tenant}/{status.request_id} {why}: a command needs a live one"
        raise RequestRejected([Problem("E_CONFLICT", "/id", message, actual=status.state)])
    place = (status.tenant, status.request_id, status.epoch, status.backend)
    asked = CommandInput(*place, secrets.token_hex(6), list(argv))
    heard = 0.0
    loop = asyncio.get_running_loop()
    try:
        while True:
            check_cancelled()
            try:
                answer = await _ask(client, asked)
            except ServerUnavailable:
                # Before the first answer nobody knows whether a worker is there at all.
                if not heard or loop.time() - heard > _AWAY_S:
                    raise
                await asyncio.sleep(1)
                continue
            heard = loop.time()
            for stream in ("stdout", "stderr"):
                if data := base64.b64decode(getattr(answer, stream)):
                    write(stream, data)
            if answer.ended:
                return CommandEnd(answer.exit_code, answer.signal, answer.error)
            asked = replace(asked, argv=[], offsets=answer.offsets)
    except BaseException:
        await _end(client, asked)
        raise


async def _ask(client: Client, asked: CommandInput) -> CommandAnswer:
    about = f"{asked.tenant}/{asked.request_id}"
    activity = names.ACTIVITY_EXECUTE
    kind = CommandAnswer
    return await ask_backend(client, asked.backend, activity, asked, kind=kind, about=about)


async def _end(client: Client, asked: CommandInput) -> None:
    """Ask for the end; where nobody hears it, it comes a minute after the last question."""
    with suppress(FabricError, TimeoutError):
        async with asyncio.timeout(_LAST_WORD_S):
            await _ask(client, replace(asked, argv=[], end=True))
