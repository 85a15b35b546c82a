"""Run a command beside a live payload for a client anywhere: a standalone activity.

Each call starts the command where it is not known and returns the next piece of its output, at
the latest after twenty seconds; so nothing but the backend itself has to remember it.
"""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING

from temporalio import activity
from temporalio.exceptions import ApplicationError

from temporal_fabric import names
from temporal_fabric.activities.heartbeat import beating
from temporal_fabric.adapters.capabilities import Executing
from temporal_fabric.adapters.contract import AttemptKey, CommandPiece
from temporal_fabric.commands import CommandAnswer, CommandInput
from temporal_fabric.errors import PermanentBackendError
from temporal_fabric.requests import ExecutionRequest
from temporal_fabric.secrets.redaction import FOLDER, VARIABLES, Redactor
from temporal_fabric.secrets.resolving import redactor, resolve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from temporal_fabric.activities.desk import Desk
    from temporal_fabric.requests.settings import SecretUse

_PATIENCE_S = 20.0
_HELD_BACK_S = 0.5
"""Pause before looking again at an end of output that may become a secret."""


class Execute:
    """The ``execute`` activity of one worker."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @activity.defn(name=names.ACTIVITY_EXECUTE)
    async def execute(self, asked: CommandInput) -> CommandAnswer:
        """Start a command, or go on with it, and return what is new.

        Raises:
            ApplicationError: non-retryable, E_CONFLICT: this backend runs no commands, or the
                payload does not run; E_SECRET: its secrets cannot be hidden.
        """
        adapter = self._desk.backend(asked.backend)
        if not isinstance(adapter, Executing):
            text = f"{asked.backend} cannot run a command beside a payload"
            raise ApplicationError(text, type="E_CONFLICT", non_retryable=True)
        key = AttemptKey(asked.tenant, asked.request_id, asked.epoch)
        uses = await self._secrets(asked)
        hidden = await self._redactor(uses)
        async with beating():
            try:
                if asked.argv:
                    withheld = frozenset({VARIABLES, FOLDER, *(use.name for use in uses)})
                    await adapter.execute(key, asked.command, tuple(asked.argv), withheld)
                if asked.end:
                    await adapter.end(key, asked.command)
                return await _next_piece(adapter, key, asked, hidden)
            except PermanentBackendError as exc:
                raise ApplicationError(str(exc), type="E_CONFLICT", non_retryable=True) from exc

    async def _secrets(self, asked: CommandInput) -> Sequence[SecretUse]:
        record = self._desk.record(asked.tenant, asked.request_id)
        digest = await record.digest()
        if digest is None:
            text = f"no such experiment: {asked.tenant}/{asked.request_id}"
            raise ApplicationError(text, type="E_CONFLICT", non_retryable=True)
        return ExecutionRequest.from_mapping(await record.body(digest)).secrets

    async def _redactor(self, uses: Sequence[SecretUse]) -> Redactor:
        try:
            return redactor(await asyncio.to_thread(resolve, uses, self._desk.settings.secrets))
        except PermanentBackendError as exc:
            raise ApplicationError(str(exc), type="E_SECRET", non_retryable=True) from exc


async def _next_piece(
    adapter: Executing, key: AttemptKey, asked: CommandInput, hidden: Redactor
) -> CommandAnswer:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _PATIENCE_S
    before = (asked.offsets[0], asked.offsets[1])
    while True:
        left = max(deadline - loop.time(), 0.0)
        piece = await adapter.fetch(key, asked.command, before, left)
        answer = _answer(piece, before, hidden)
        if answer.stdout or answer.stderr or answer.ended or asked.end or left == 0:
            return answer
        await asyncio.sleep(_HELD_BACK_S)


def _answer(piece: CommandPiece, before: tuple[int, int], hidden: Redactor) -> CommandAnswer:
    told: list[str] = []
    offsets: list[int] = []
    for data, offset in zip((piece.stdout, piece.stderr), before, strict=True):
        ready, rest = (hidden.redact(data), b"") if piece.ended else hidden.split(data)
        told.append(base64.b64encode(ready).decode())
        # What may begin a secret is asked for again, with what follows it.
        offsets.append(offset + len(data) - len(rest))
    return CommandAnswer(
        stdout=told[0],
        stderr=told[1],
        offsets=offsets,
        ended=piece.ended,
        exit_code=piece.exit_code,
        signal=piece.signal,
        error=piece.error,
    )
