"""OpenTelemetry spans, exported only where a collector is configured."""

from __future__ import annotations

import functools
import logging
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator

from temporal_fabric.observability.traceparent import TraceParent

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from opentelemetry.sdk.trace.export import SpanExporter

    from temporal_fabric.watch_settings import TracingSettings

FLUSH_S = 3.0
"""What a process that ends waits for a slow collector."""

log = logging.getLogger(__name__)


class Tracing:
    """Makes spans whose ids are given, and sends them to one exporter.

    Args:
        exporter: Where ended spans go.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        resource = Resource.create()
        if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: "temporal-fabric"}))
        self._provider = TracerProvider(
            resource=resource, id_generator=_GivenIds(), shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("temporal_fabric")

    @contextmanager
    def submit(
        self, parent: TraceParent | None, attributes: Mapping[str, Any]
    ) -> Generator[TraceParent]:
        """Trace a submission, below the caller's own span where there is one."""
        own_context = None if parent is None else _context(parent)
        if trace.get_current_span().get_span_context().is_valid:
            own_context = None
        with self._tracer.start_as_current_span(
            "submit", own_context, trace.SpanKind.PRODUCER, attributes
        ) as span:
            made = span.get_span_context()
            flags = f"{int(made.trace_flags) & 1:02x}"
            yield TraceParent(f"{made.trace_id:032x}", f"{made.span_id:016x}", flags)

    def record(
        self,
        name: str,
        span: TraceParent,
        parent: TraceParent | None,
        *,
        times_s: tuple[float, float],
        attributes: Mapping[str, Any],
        error: str = "",
    ) -> None:
        """Send one span that is over.

        Args:
            name: What it is.
            span: Its own ids.
            parent: The span above it; None for the root of a trace.
            times_s: Begin and end, Unix seconds.
            attributes: What is known of it.
            error: Why it failed; empty where it did not.
        """
        token = _given.set(span)
        try:
            made = self._tracer.start_span(
                name,
                Context() if parent is None else _context(parent),
                attributes=attributes,
                start_time=_ns(times_s[0]),
            )
        finally:
            _given.reset(token)
        if error:
            made.set_status(trace.Status(trace.StatusCode.ERROR, error))
        made.end(_ns(times_s[1]))

    def flush(self) -> None:
        """Send what waits, for some seconds at most."""
        # A daemon thread: a collector that does not answer must not hold up the process.
        sending = threading.Thread(target=self._provider.force_flush, daemon=True)
        sending.start()
        sending.join(FLUSH_S)


@functools.cache
def open_tracing(settings: TracingSettings) -> Tracing | None:
    """Return this process's tracing, or None where no collector is configured."""
    if not settings.endpoint:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
    except ImportError:
        log.warning("spans are not exported: install temporal-fabric[otlp]")
        return None
    return Tracing(OTLPSpanExporter(endpoint=settings.endpoint))


class _GivenIds(IdGenerator):
    """Hands out the ids of the span at hand, random ones where none are given."""

    def __init__(self) -> None:
        self._random = RandomIdGenerator()

    def generate_span_id(self) -> int:
        given = _given.get(None)
        return self._random.generate_span_id() if given is None else int(given.span_id, 16)

    def generate_trace_id(self) -> int:
        given = _given.get(None)
        return self._random.generate_trace_id() if given is None else int(given.trace_id, 16)


_given: ContextVar[TraceParent] = ContextVar("given_span")


def _context(parent: TraceParent) -> Context:
    remote = trace.SpanContext(
        int(parent.trace_id, 16),
        int(parent.span_id, 16),
        is_remote=True,
        trace_flags=trace.TraceFlags(int(parent.flags, 16)),
    )
    return trace.set_span_in_context(trace.NonRecordingSpan(remote))


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
