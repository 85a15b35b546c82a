"""Commands beside a payload: the job itself starts them, so they share what the payload has."""

from __future__ import annotations

import base64
import hashlib
import signal
from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters.contract import CommandPiece, Phase
from temporal_fabric.adapters.slurm_states import read_seen, status_of
from temporal_fabric.errors import PermanentBackendError, TransientBackendError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_ANSWER_S = 15.0
_PATIENCE_S = 3.0


class Commands:
    """Starts commands and fetches what they write.

    Args:
        ask: Asks the login node: a verb, and what it needs by name.
    """

    def __init__(self, ask: Callable[..., Awaitable[Any]]) -> None:
        self._ask = ask

    async def execute(
        self, job: str, command: str, argv: tuple[str, ...], withheld: frozenset[str]
    ) -> None:
        """See `Executing.execute`; the job's name is its attempt's."""
        asked = {"action": "execute", "argv": list(argv), "withheld": sorted(withheld)}
        told = await self._control(job, {**asked, "command": _safe(command)})
        status = status_of(read_seen(told))
        if status.phase is not Phase.RUNNING:
            raise PermanentBackendError(f"the payload does not run [job={job}]")
        if status.started_at is None:
            raise TransientBackendError(f"the payload has not begun [job={job}]")
        if status.paused:
            raise PermanentBackendError(f"the payload stands still [job={job}]: resume it first")

    async def fetch(
        self, job: str, command: str, offsets: tuple[int, int], limit_s: float
    ) -> CommandPiece:
        """See `Executing.fetch`; it may wait for less than it was told."""
        patience_s = min(limit_s, _PATIENCE_S)
        told = await self._ask(
            "fetch",
            name=job,
            command=_safe(command),
            offsets=list(offsets),
            patience_s=patience_s,
            longer_s=patience_s,
        )
        stdout, stderr = (base64.b64decode(piece) for piece in told["pieces"])
        end: dict[str, Any] = told["end"] or {}
        return CommandPiece(
            stdout=stdout,
            stderr=stderr,
            ended=bool(end),
            exit_code=end.get("exit_code"),
            signal=end.get("signal"),
            error=end.get("error", ""),
        )

    async def end(self, job: str, command: str) -> None:
        """See `Executing.end`."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            asked = {"action": "end", "command": _safe(command), "signal": int(number)}
            await self._control(job, asked)

    async def _control(self, job: str, control: dict[str, Any]) -> Any:
        return await self._ask(
            "control", name=job, control=control, patience_s=_ANSWER_S, longer_s=_ANSWER_S
        )


def _safe(command: str) -> str:
    """Return a name of which files can be made, whatever the command is called."""
    return hashlib.sha256(command.encode()).hexdigest()[:24]
