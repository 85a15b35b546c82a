"""How an experiment's end reads in Temporal, and how a client reads it back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from temporalio.converter import DefaultFailureConverter
from temporalio.exceptions import ApplicationError

from temporal_fabric.errors import ExperimentNotFound, Problem, RequestRejected
from temporal_fabric.shapes import is_rows
from temporal_fabric.states import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from temporalio.api.failure.v1 import Failure
    from temporalio.converter import PayloadConverter

_REASONS = frozenset(Reason)


class ExperimentFailureConverter(DefaultFailureConverter):
    """Drops the stack trace of ends that are no fault of our code.

    A payload's failure and a refused request are told by type, message and details. A stack
    through the workflow's code would only hide them, in the web UI above all.
    """

    def to_failure(
        self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure
    ) -> None:
        """See base class."""
        super().to_failure(exception, payload_converter, failure)
        if isinstance(exception, ApplicationError):
            kind = exception.type or ""
            if kind.startswith("E_") or kind in _REASONS - {Reason.INTERNAL}:
                failure.stack_trace = ""
                failure.ClearField("cause")


def refusal_of(cause: BaseException | None) -> RequestRejected | None:
    """Return the refusal that a failed run or activity stands for; None for any other end."""
    if not isinstance(cause, ApplicationError) or not (cause.type or "").startswith("E_"):
        return None
    detail: Any = cause.details[0] if cause.details else None
    if not is_rows(detail):
        return None
    return RequestRejected([Problem.from_dict(item) for item in detail])


def not_found(wanted: str, fitting: Sequence[str]) -> ExperimentNotFound:
    """Return the error for an id that fits nothing, or too much."""
    if fitting:
        few = ", ".join(sorted(set(fitting))[:5])
        return ExperimentNotFound(f"more than one experiment fits [id={wanted}]: {few}")
    return ExperimentNotFound(
        f"no such experiment [id={wanted}]: 'temporal-fabric list' shows what there is"
    )
