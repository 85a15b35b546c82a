"""Pure decisions of the experiment workflow: no state, no I/O, the same on every replay."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from temporalio.exceptions import ActivityError, ApplicationError, ChildWorkflowError, TimeoutType
from temporalio.exceptions import TimeoutError as ActivityTimeout

from temporal_fabric import names
from temporal_fabric.outcomes import AttemptResult
from temporal_fabric.questions import Answer
from temporal_fabric.shapes import is_table
from temporal_fabric.states import FREE_RETRIES, Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from temporal_fabric.messages import Grant, RetryRule


_ASKED_FOR = frozenset({Reason.LOST, Reason.CERT_FAIL})
"""Ends after which only a request that names them is run again: nobody knows what a lost attempt
did, and a certificate that failed fails again."""


def pool_of(body: Any) -> str:
    """Return the pool a body names, or the default one where it names none.

    The body is not admitted yet, so anything that is not a plain name counts as none: the
    default pool's `acquire` then refuses it with every problem listed.
    """
    pool: Any = body.get("pool") if is_table(body) else None
    if isinstance(pool, str) and 0 < len(pool) <= 63 and pool.replace("-", "").isalnum():  # noqa: PLR2004
        return pool
    return names.DEFAULT_POOL


def retried(grant: Grant, ended: AttemptResult, counted: int) -> bool:
    """Say whether a failed attempt is followed by another.

    Args:
        grant: The placement, which carries the request's retry rule.
        ended: How the attempt ended.
        counted: Ended attempts that count against ``max_attempts``, this one included.
    """
    rule = grant.retry
    if ended.answer:
        return ended.answer != Answer.ABORT  # a person has said what nobody else knew
    if ended.reason in _ASKED_FOR:
        return rule.on is not None and ended.reason in rule.on
    if ended.reason in FREE_RETRIES:
        return True
    return counted < rule.max_attempts and (rule.on is None or ended.reason in rule.on)


def denied(grant: Grant, attempts: Sequence[AttemptResult], at: str) -> AttemptResult:
    """Return the end of a run that gets no place: its last attempt's, where there was one."""
    if not attempts:
        return AttemptResult(
            epoch=0,
            backend="",
            ok=False,
            reason=grant.denied_reason,
            message=grant.denied,
            ended_at=at,
        )
    last = attempts[-1]
    reason = grant.denied_reason or last.reason
    return replace(last, reason=reason, message=f"{last.message}; {grant.denied}")


def overdue(grant: Grant | None, at: str) -> AttemptResult:
    """Return the end of a run whose deadline, which came with a grant, has passed."""
    return AttemptResult(
        epoch=grant.epoch if grant else 0,
        backend=grant.backend if grant else "",
        ok=False,
        reason=Reason.TIMEOUT,
        message=f"the deadline passed: {grant.deadline if grant else at}",
        ended_at=at,
    )


def back_off_s(rule: RetryRule, attempts: int) -> float:
    """Return the seconds before the next attempt, after so many have ended."""
    return min(rule.max_interval_s, rule.initial_interval_s * rule.backoff ** (attempts - 1))


def cause_of(error: ActivityError | ChildWorkflowError) -> BaseException:
    """Return what made an activity fail, also one of a child workflow."""
    cause = error.cause
    if isinstance(error, ChildWorkflowError) and isinstance(cause, ActivityError):
        cause = cause.cause
    return cause or error


def host_did_not_answer(error: ActivityError | ChildWorkflowError) -> bool:
    """Say whether an activity was never taken by its host's worker in time."""
    cause = cause_of(error)
    return isinstance(cause, ActivityTimeout) and cause.type == TimeoutType.SCHEDULE_TO_START


def is_drained(error: ActivityError) -> bool:
    """Say whether a host that is drained left a question for a place to others."""
    cause = error.cause
    return isinstance(cause, ApplicationError) and cause.type == names.DRAINED_HERE


def refusal(error: ActivityError) -> ApplicationError:
    """Turn a failed admission into the workflow's own failure: same type, same details."""
    cause = error.cause
    if isinstance(cause, ApplicationError):
        return ApplicationError(cause.message, *cause.details, type=cause.type, non_retryable=True)
    return ApplicationError(str(cause or error), type=Reason.INTERNAL, non_retryable=True)
