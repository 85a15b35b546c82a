"""What a worker tells of its tasks: one call each for a start and an end."""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from temporal_fabric.observability.context import TaskContext, current, task
from temporal_fabric.observability.events import EventLog
from temporal_fabric.requests.models import KINDS
from temporal_fabric.states import Reason, State

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping

    from temporal_fabric.config import Settings
    from temporal_fabric.observability.tracing import Tracing

log = logging.getLogger(__name__)

_ENDS = {
    State.SUCCEEDED: "task_completed",
    State.FAILED: "task_failed",
    State.CANCELED: "task_canceled",
}


class Observer:
    """Writes log lines and events, counts, and holds the tracing of one worker.

    Args:
        settings: What the fabric is told.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._events = EventLog(settings.logs / "events.jsonl")
        self._metrics = None
        self.tracing: Tracing | None = None
        if settings.metrics.port is not None:
            from temporal_fabric import __version__  # noqa: PLC0415 - the package imports us
            from temporal_fabric.observability.metrics import TaskMetrics  # noqa: PLC0415

            self._metrics = TaskMetrics(KINDS, __version__)
        if settings.tracing.endpoint:
            from temporal_fabric.observability.tracing import open_tracing  # noqa: PLC0415

            self.tracing = open_tracing(settings.tracing)

    @contextmanager
    def serving(self, places: Callable[[], Iterable[tuple[str, int, int]]]) -> Generator[str]:
        """Serve metrics while the block runs; yield their URL, empty where they are off.

        Raises:
            MetricsRefused: no token is configured, or the port is taken.
        """
        metrics, wanted = self._metrics, self._settings.metrics
        if metrics is None or wanted.port is None:
            yield ""
            return
        from temporal_fabric.observability.endpoint import serving  # noqa: PLC0415

        metrics.watch(places)
        with serving(wanted.host, wanted.port, metrics.registry, wanted.token()) as url:
            yield url

    async def started(self, kind: str, backend: str) -> None:
        """Tell that the payload of the task at hand was given to a backend."""
        await self._tell("task_started", {"class": kind, "backend": backend})

    async def ended(self, record: Mapping[str, Any], kind: str, run: Mapping[str, str]) -> None:
        """Tell that a task ended.

        Args:
            record: The terminal record, as it stands in the capsule.
            kind: The payload's kind.
            run: Workflow id and run id.
        """
        state, reason = str(record["state"]), str(record["reason"])
        duration_s = _seconds(str(record["started_at"]), str(record["ended_at"]))
        about = TaskContext(record["tenant"], record["request_id"], record["epoch"], **run)
        fields: dict[str, Any] = {
            "class": kind,
            "backend": record["backend"],
            "duration_s": duration_s,
            "outcome": state,
            "reason": reason,
        }
        with task(about):
            await self._tell(_ENDS.get(State(state), "task_failed"), fields)
        if self._metrics is not None:
            self._metrics.ended(kind, state, reason, duration_s)

    async def refused(self, kind: str, code: str) -> None:
        """Tell that the task at hand was refused, under an error code."""
        outcome, reason = State.FAILED, Reason.REFUSED
        kind = kind if kind in KINDS else "other"
        fields = {"class": kind, "outcome": outcome, "reason": reason, "code": code}
        await self._tell("task_failed", fields)
        if self._metrics is not None:
            self._metrics.ended(kind, outcome, reason, None)

    def close(self) -> None:
        """Send what waits."""
        self._events.close()
        if self.tracing is not None:
            self.tracing.flush()

    async def _tell(self, event: str, fields: dict[str, Any]) -> None:
        log.info("%s %s", event, " ".join(f"{name}={value}" for name, value in fields.items()))
        # A stalled disk must not stall every heartbeat of this worker.
        await asyncio.to_thread(self._events.write, event, current().fields() | fields)


def _seconds(begin: str, end: str) -> float:
    try:
        passed = datetime.fromisoformat(end) - datetime.fromisoformat(begin)
    except ValueError:
        return 0.0
    return max(0.0, round(passed.total_seconds(), 3))
