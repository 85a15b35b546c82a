"""Metrics of one worker, in Prometheus' terms; every label value comes from a closed list."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, Info
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from temporal_fabric.states import FINAL, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client.core import Metric

OTHER = "other"
"""Label value of whatever is not on the list: labels must not grow with what users write."""

_BUCKETS_S = (0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 86400, 3 * 86400)


class TaskMetrics:
    """Counts ended tasks of this worker.

    Args:
        classes: Payload kinds, the values of the label ``class``.
        version: The fabric's version.
    """

    def __init__(self, classes: Iterable[str], version: str) -> None:
        self.registry = CollectorRegistry()
        self._classes = frozenset(classes)
        self._tasks = Counter(
            "fabric_tasks",
            "Tasks that ended on this worker, by outcome and reason",
            ("class", "outcome", "reason"),
            registry=self.registry,
        )
        self._durations = Histogram(
            "fabric_task_duration_seconds",
            "From submission to the end of a task, waiting included",
            ("class", "outcome"),
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        build = Info("fabric_build", "What this worker is", registry=self.registry)
        build.info({"version": version, "python": platform.python_version()})

    def ended(self, kind: str, outcome: str, reason: str, duration_s: float | None) -> None:
        """Count one task that ended; without a duration where it never began."""
        kind = kind if kind in self._classes else OTHER
        outcome = outcome if outcome in FINAL else OTHER
        reason = reason if not reason or reason in set(Reason) else OTHER
        self._tasks.labels(kind, outcome, reason).inc()
        if duration_s is not None:
            self._durations.labels(kind, outcome).observe(duration_s)

    def watch(self, places: Callable[[], Iterable[tuple[str, int, int]]]) -> None:
        """Report places at every scrape: backend, running attempts, waiting requests."""
        self.registry.register(_Places(places))


class _Places(Collector):
    def __init__(self, places: Callable[[], Iterable[tuple[str, int, int]]]) -> None:
        self._places = places

    def collect(self) -> Iterator[Metric]:
        running = GaugeMetricFamily(
            "fabric_active_tasks", "Attempts this worker supervises", labels=["backend"]
        )
        waiting = GaugeMetricFamily(
            "fabric_queue_depth", "Requests that wait for a place", labels=["backend"]
        )
        for backend, active, queued in self._places():
            running.add_metric([backend], active)
            waiting.add_metric([backend], queued)
        yield running
        yield waiting
