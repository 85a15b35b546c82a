"""Recording telemetry beside an attempt's supervision, and the rest of it before the seal.

All reading and writing happens in threads, so that heartbeats go on; nothing here can fail an
attempt. What an attempt left unread, because its worker died or the disk was full, is read
when the capsule is sealed.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters.local_secrets import scrub
from temporal_fabric.errors import PermanentBackendError
from temporal_fabric.recorder.recorder import Recorder
from temporal_fabric.requests.models import ExecutionRequest
from temporal_fabric.secrets.resolving import redactor, resolve
from temporal_fabric.workplace import Workplace

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from temporal_fabric.activities.desk import Desk
    from temporal_fabric.config import SecretsConfig
    from temporal_fabric.outcomes import ExperimentResult

log = logging.getLogger(__name__)

_POLL_S = 0.5
_TRIES = 5
_PAUSE_S = 1.0


class Recording:
    """The live side of one attempt's telemetry."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._turn = threading.Lock()

    def details(self, started_at: float | None) -> dict[str, Any]:
        """Return progress, stage, remaining time and last metrics for the heartbeat."""
        live = self._recorder.live
        if not live.get("cursor", {}).get("rows"):
            return {}
        part, left = live.get("progress", 0.0), dict[str, Any]()
        if started_at is not None and 0 < part <= 1:
            left["eta_s"] = round((time.time() - started_at) * (1 - part) / part, 1)
        metrics = {name: _plain(value) for name, value in live["metrics"].items()}
        return live | left | {"metrics": metrics}

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            # Most payloads write seldom, and a thread for each look costs more than the look.
            if not self._recorder.idle:
                await asyncio.to_thread(self._alone, self._recorder.poll)
            await asyncio.sleep(_POLL_S)

    async def finish(self) -> None:
        """Seal the rest; a full disk is tried for some seconds, the seal tries again."""
        for _ in range(_TRIES):
            if await asyncio.to_thread(self._alone, self._recorder.finish):
                return
            await asyncio.sleep(_PAUSE_S)

    def _alone(self, work: Callable[[], bool | None]) -> bool:
        # A cancelled poll goes on in its thread: what follows must wait, or both read the same.
        with self._turn:
            return _tried(work)


@asynccontextmanager
async def recording(
    place: Workplace, request: ExecutionRequest, secrets: SecretsConfig
) -> AsyncGenerator[Recording]:
    """Record while the block runs; seal everything where it ends without an exception."""
    found = Recording(await asyncio.to_thread(_recorder, place, request, secrets))
    task = asyncio.create_task(found.run())
    try:
        yield found
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    await found.finish()


async def catch_up(desk: Desk, body: Mapping[str, Any], result: ExperimentResult) -> None:
    """Record what is left of every epoch of a run that lies on this host, and hide secrets."""
    request = ExecutionRequest.from_mapping(body)
    secrets = desk.settings.secrets
    for epoch in result.epochs:
        place = Workplace.of(desk.settings.runs, result.tenant, result.request_id, epoch)
        if place.folder.is_dir():
            await asyncio.to_thread(_catch_up, place, request, secrets)


def _catch_up(place: Workplace, request: ExecutionRequest, secrets: SecretsConfig) -> None:
    _tried(_recorder(place, request, secrets).finish)
    scrub(place, request, secrets)


def _recorder(place: Workplace, request: ExecutionRequest, secrets: SecretsConfig) -> Recorder:
    return Recorder(place.folder, place.epoch, _redaction(request, secrets))


def _redaction(
    request: ExecutionRequest, secrets: SecretsConfig
) -> Callable[[bytes], bytes] | None:
    if not request.secrets:
        return None
    try:
        return redactor(resolve(request.secrets, secrets)).redact
    except PermanentBackendError:
        # Without the values nothing could be hidden, so nothing is recorded.
        return lambda _: b""


def _tried(work: Callable[[], bool | None]) -> bool:
    try:
        return bool(work())
    except Exception:
        # Telemetry is worth a log entry, never the attempt it tells about.
        log.exception("telemetry could not be recorded")
        return False


def _plain(value: float) -> float | str:
    # JSON has no NaN and no infinity, and Temporal's web UI reads heartbeats as JSON.
    return value if math.isfinite(value) else str(value)
