"""The client's side of a trace: its context goes with the start of an experiment."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from temporalio.client import Interceptor, OutboundInterceptor
from temporalio.converter import PayloadConverter

from temporal_fabric import names
from temporal_fabric.observability.traceparent import CARRIER_KEY, VARIABLE, TraceParent
from temporal_fabric.shapes import is_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from temporalio.api.common.v1 import Payload
    from temporalio.client import StartWorkflowInput, WorkflowHandle

    from temporal_fabric.observability.tracing import Tracing
    from temporal_fabric.watch_settings import TracingSettings

HEADER = "_tracer-data"
"""The header of the SDK's own tracing interceptor: a client that uses that one is understood."""

_HEADER_BYTES = 1024


class SubmitInterceptor(Interceptor):
    """Gives every started experiment the trace it was submitted in.

    Args:
        tracing: Makes the ``submit`` span; without it the ``TRACEPARENT`` of this process is
            handed on as it is.
    """

    def __init__(self, tracing: Tracing | None = None) -> None:
        self._tracing = tracing

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:  # noqa: A002
        """See `temporalio.client.Interceptor.intercept_client`."""
        return _Submit(next, self._tracing)


class _Submit(OutboundInterceptor):
    def __init__(self, below: OutboundInterceptor, tracing: Tracing | None) -> None:
        super().__init__(below)
        self._tracing = tracing

    async def start_workflow(
        self,
        input: StartWorkflowInput,  # noqa: A002 - its base's name
    ) -> WorkflowHandle[Any, Any]:
        if input.workflow != names.WORKFLOW_EXPERIMENT or HEADER in input.headers:
            return await super().start_workflow(input)
        caller = TraceParent.parse(os.environ.get(VARIABLE))
        if self._tracing is None:
            if caller is not None:
                input.headers = {**input.headers, HEADER: _carrier(caller)}
            return await super().start_workflow(input)
        with self._tracing.submit(caller, {"temporalWorkflowID": input.id}) as span:
            input.headers = {**input.headers, HEADER: _carrier(span)}
            return await super().start_workflow(input)


def flush(settings: TracingSettings) -> None:
    """Send the spans of this process before it ends, for some seconds at most."""
    if settings.endpoint:
        from temporal_fabric.observability.tracing import open_tracing  # noqa: PLC0415

        tracing = open_tracing(settings)
        if tracing is not None:
            tracing.flush()


def carried(headers: Mapping[str, Payload]) -> TraceParent | None:
    """Read the span that headers name; anyone may have written them, and anything."""
    payload = headers.get(HEADER)
    if payload is None or len(payload.data) > _HEADER_BYTES:
        return None
    try:
        carrier = json.loads(payload.data)
    except (ValueError, RecursionError):
        return None
    return TraceParent.parse(carrier.get(CARRIER_KEY)) if is_table(carrier) else None


def _carrier(span: TraceParent) -> Payload:
    return PayloadConverter.default.to_payloads([{CARRIER_KEY: str(span)}])[0]
