"""W3C trace context of a run, known everywhere without being told.

The ids of the fabric's own spans follow from the run id, so that a worker which adopts a
payload continues the very spans its predecessor began, and a payload has a trace also where
nothing is traced: only the submission's own ids have to travel.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

VARIABLE = "TRACEPARENT"
CARRIER_KEY = "traceparent"

_SHAPE = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})\Z")


@dataclass(frozen=True, slots=True)
class TraceParent:
    """One span as its children name it; ids in lower-case hex."""

    trace_id: str
    span_id: str
    flags: str = "01"

    @classmethod
    def parse(cls, value: object) -> TraceParent | None:
        """Read a ``traceparent``; None where it is none. It may come from anyone."""
        match = _SHAPE.match(value) if isinstance(value, str) else None
        if match is None or not int(match[1], 16) or not int(match[2], 16):
            return None
        return cls(match[1], match[2], match[3])

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"


@dataclass(frozen=True, slots=True)
class RunTrace:
    """The spans of one run: submit > acquire > attempt > payload."""

    run_id: str
    submitted: TraceParent | None = None
    """The span of the submission; None for a start without one, as a Schedule's."""

    def acquire(self, number: int) -> TraceParent:
        """Return the span of the n-th grant."""
        return self._span("acquire", number)

    def attempt(self, number: int) -> TraceParent:
        """Return the span of the attempt under the n-th grant."""
        return self._span("attempt", number)

    def payload(self, epoch: int) -> TraceParent:
        """Return the span of the payload itself, the parent of whatever it traces."""
        return self._span("payload", epoch)

    def _span(self, name: str, number: int) -> TraceParent:
        span_id = _hash(f"{name}/{number}/{self.run_id}")[:16]
        if self.submitted is None:
            return TraceParent(_hash(self.run_id)[:32], span_id)
        return TraceParent(self.submitted.trace_id, span_id, self.submitted.flags)


def payload_environment() -> dict[str, str]:
    """Return what the payload of the current attempt is told of its trace."""
    span = _payload.get(None)
    return {} if span is None else {VARIABLE: str(span)}


@contextmanager
def payload_span(span: TraceParent) -> Generator[None]:
    """Let `payload_environment` name this span."""
    token = _payload.set(span)
    try:
        yield
    finally:
        _payload.reset(token)


_payload: ContextVar[TraceParent] = ContextVar("payload_span")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
