"""How an experiment's end reads in Temporal: without the stack of code that only reports it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from temporalio.converter import DefaultFailureConverter
from temporalio.exceptions import ApplicationError

from temporal_fabric.states import Reason

if TYPE_CHECKING:
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
