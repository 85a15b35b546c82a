"""Every error the fabric raises, in one tree, without any dependency.

::

    FabricError
     +-- RequestRejected            permanent: bad input, all problems at once
     |    +-- AccessDenied         the server refuses the caller's credential: E_AUTH
     +-- ServerUnavailable          transient: no Temporal server answers
     +-- DevServerError             the embedded server cannot be resolved, built or started
     +-- HostLockHeld               another worker of this host is already running
     +-- MetricsRefused             metrics are asked for and cannot be served safely
     +-- ExperimentNotFound         no such experiment, in Temporal or in the store
     +-- ExperimentNotFinished      a result was asked for too early
     +-- ExperimentFailed           the experiment ended FAILED; carries the result
     |    +-- ExperimentCanceled    ... ended CANCELED
     +-- MapFailed                  some calls of a `map` failed; carries all of them
     +-- StoreError                 the store refused or lost an object
     |    +-- StoreConflict         an exclusive object exists with other content
     |    +-- ContentDiffers        content is not what its digest says
     +-- CapsuleError               a capsule is missing, unsealed or does not verify
     +-- StaleEpoch                 a fenced effect was tried under an old epoch
     +-- BackendError
          +-- TransientBackendError the same call may succeed later
          |    +-- BackendUnknown   the backend's answer is missing: look again, never create
          +-- PermanentBackendError the same call fails again
               +-- ArtifactFailed       an input or output cannot be transferred
               +-- EnvironmentFailed    what a payload needs could not be installed
               +-- FlowProcessDied      the process of JAX died of the same step again and again

Messages say what happened, then ``[key=value, ...]``, then what to try.
Workflow code imports this module, so it imports nothing outside the standard library.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "AccessDenied",
    "ArtifactFailed",
    "BackendError",
    "BackendUnknown",
    "CapsuleError",
    "ContentDiffers",
    "DevServerError",
    "EnvironmentFailed",
    "ExperimentCanceled",
    "ExperimentFailed",
    "ExperimentNotFinished",
    "ExperimentNotFound",
    "FabricError",
    "FlowProcessDied",
    "HostLockHeld",
    "MapFailed",
    "MetricsRefused",
    "PermanentBackendError",
    "Problem",
    "RequestRejected",
    "ServerUnavailable",
    "StaleEpoch",
    "StoreConflict",
    "StoreError",
    "TransientBackendError",
]


class FabricError(Exception):
    """Base of every error raised on purpose by the fabric."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a request.

    The shape is the error contract: the same from Python, CLI, workflow failure and HTTP.
    """

    code: str
    """``E_...`` code of the error contract."""

    path: str
    """JSON pointer to the place, ``""`` for the whole body."""

    message: str
    """What is wrong, then what to do, for a person."""

    limit: str | int | float | None = None
    """The limit that was passed, where there is one."""

    actual: str | int | float | None = None
    """What was found, at most 80 characters, control characters escaped."""

    allowed: tuple[str, ...] | None = None
    """The values that would be accepted, where they can be listed."""

    line: int | None = None
    """Line in the source file, where the body came from one."""

    retryable: bool | None = None
    """Set where the same request may be accepted later."""

    retry_after_s: float | None = None
    """Seconds after which to send it again, where they can be told."""

    def as_dict(self) -> dict[str, Any]:
        """Return the problem as a JSON object without empty fields."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Problem:
        """Rebuild a problem from `as_dict`."""
        allowed = data.get("allowed")
        return cls(
            code=str(data["code"]),
            path=str(data["path"]),
            message=str(data["message"]),
            limit=data.get("limit"),
            actual=data.get("actual"),
            allowed=None if allowed is None else tuple(str(item) for item in allowed),
            line=data.get("line"),
            retryable=data.get("retryable"),
            retry_after_s=data.get("retry_after_s"),
        )


class RequestRejected(FabricError):
    """A request was refused; nothing was started and nothing was written."""

    def __init__(self, problems: Sequence[Problem], *, source: str | None = None) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        self.source = source
        count = len(self.problems)
        head = f"request refused: {count} problem{'s' if count != 1 else ''}"
        lines = [f"  {p.code} at {p.path or '/'}{_line(p)}: {p.message}" for p in self.problems]
        super().__init__("\n".join([head, *lines]))

    @property
    def code(self) -> str:
        """The first problem's code, used as the Temporal failure type."""
        return self.problems[0].code if self.problems else "E_PARSE"

    @property
    def retryable(self) -> bool:
        """Whether the same request may be accepted later, as it is."""
        return bool(self.problems) and all(problem.retryable for problem in self.problems)

    @property
    def retry_after_s(self) -> float | None:
        """Seconds after which to send it again; None where nobody can tell."""
        waits = [p.retry_after_s for p in self.problems if p.retry_after_s is not None]
        return max(waits, default=None) if self.retryable else None


class AccessDenied(RequestRejected):
    """The server refuses what this caller asks for: one problem, E_AUTH."""


def _line(problem: Problem) -> str:
    return "" if problem.line is None else f" (line {problem.line})"


class ServerUnavailable(FabricError):
    """No Temporal server answers at the resolved address."""


class DevServerError(FabricError):
    """The embedded Temporal server cannot be found, built or started."""


class HostLockHeld(FabricError):
    """Another worker process already serves this host's local backends."""


class MetricsRefused(FabricError):
    """Metrics were asked for without a usable token, or at an address that is taken."""


class ExperimentNotFound(FabricError):
    """Neither Temporal nor the store knows the experiment."""


class ExperimentNotFinished(FabricError):
    """The experiment has not ended yet."""


class ExperimentFailed(FabricError):
    """The experiment ended without success.

    Attributes:
        result: The full result record, as a JSON object.
        reason: Reason token, such as ``EXIT_CODE``.
        exit_code: The payload's exit code, where it had one.
        stderr_excerpt: The end of the payload's standard error.
    """

    def __init__(self, message: str, result: Mapping[str, Any]) -> None:
        self.result: dict[str, Any] = dict(result)
        self.reason: str | None = self.result.get("reason")
        self.exit_code: int | None = self.result.get("exit_code")
        self.stderr_excerpt: str = self.result.get("stderr_excerpt") or ""
        super().__init__(message)


class ExperimentCanceled(ExperimentFailed):
    """The experiment was cancelled by a person."""


class MapFailed(FabricError):
    """Some calls of a `map` failed, after all of them had ended.

    Attributes:
        failures: The error of each failed call, by its place among the items.
    """

    def __init__(self, failures: Mapping[int, Exception], count: int) -> None:
        self.failures: dict[int, Exception] = dict(failures)
        lines = [
            f"  item {place}: {(str(error).splitlines() or [type(error).__name__])[0]}"
            for place, error in sorted(self.failures.items())
        ]
        super().__init__("\n".join([f"{len(lines)} of {count} calls failed", *lines]))


class StoreError(FabricError):
    """The store could not do what was asked."""


class StoreConflict(StoreError):
    """An object that may be created only once exists with other content."""


class ContentDiffers(StoreError):
    """Content has another digest than was expected."""


class CapsuleError(FabricError):
    """A capsule is missing, not sealed, or does not verify."""


class StaleEpoch(FabricError):
    """An effect was tried under an epoch that is no longer the newest."""


class BackendError(FabricError):
    """A backend refused or failed a call."""


class TransientBackendError(BackendError):
    """The same call may succeed later; Temporal retries it."""


class BackendUnknown(TransientBackendError):
    """No trustworthy answer: look again, never create."""


class PermanentBackendError(BackendError):
    """The same call will fail again.

    Attributes:
        reason: The reason token of the attempt that ends by it.
    """

    reason: str = "SETUP"


class ArtifactFailed(PermanentBackendError):
    """An input or output cannot be transferred; the message names its URI."""

    def __init__(self, message: str, *, reason: str = "SETUP") -> None:
        self.reason = reason
        super().__init__(message)


class EnvironmentFailed(PermanentBackendError):
    """What a payload needs around it could not be installed.

    Attributes:
        tail: The end of what the installer wrote; empty where it was never asked.
    """

    def __init__(self, message: str, *, tail: str = "") -> None:
        self.tail = tail
        super().__init__(message)


class FlowProcessDied(PermanentBackendError):
    """The process of JAX died of the same step again and again."""

    def __init__(self, message: str, *, reason: str = "SIGNAL") -> None:
        self.reason = reason
        super().__init__(message)
