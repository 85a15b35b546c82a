"""States of an experiment, reason tokens, and the legal moves between states.

Workflow code imports this module, so it imports nothing outside the standard library.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where an experiment stands."""

    QUEUED = "QUEUED"
    PREPARING = "PREPARING"
    RUNNING = "RUNNING"
    COLLECTING = "COLLECTING"
    RETRYING = "RETRYING"
    PAUSED = "PAUSED"
    HELD = "HELD"
    CANCELLING = "CANCELLING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"

    @property
    def final(self) -> bool:
        """Whether nothing can follow."""
        return self in FINAL


class Reason(StrEnum):
    """Why an experiment FAILED, or what it waits for."""

    EXIT_CODE = "EXIT_CODE"
    SIGNAL = "SIGNAL"
    OOM = "OOM"
    TIMEOUT = "TIMEOUT"
    LOST = "LOST"
    SETUP = "SETUP"
    OUTPUT_MISSING = "OUTPUT_MISSING"
    INTEGRITY = "INTEGRITY"
    CERT_FAIL = "CERT_FAIL"
    BUDGET = "BUDGET"
    PREEMPTED = "PREEMPTED"
    NO_BACKEND = "NO_BACKEND"
    REFUSED = "REFUSED"
    INTERNAL = "INTERNAL"
    BACKEND_DOWN = "BACKEND_DOWN"
    WAITING_FOR_CAPACITY = "WAITING_FOR_CAPACITY"
    DRAINED = "DRAINED"
    DEPENDENCY = "DEPENDENCY"
    ROLLBACK = "ROLLBACK"


FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELED})

FREE_RETRIES = frozenset({Reason.PREEMPTED, Reason.LOST})
"""Ends that do not count against ``retry.max_attempts``."""

_ENDS = frozenset({State.FAILED, State.CANCELLING})

MOVES: dict[State, frozenset[State]] = {
    State.QUEUED: _ENDS
    | {State.PREPARING, State.PAUSED, State.HELD}
    | {State.COLLECTING, State.SUCCEEDED},
    State.PREPARING: _ENDS
    | {State.RUNNING, State.COLLECTING, State.RETRYING, State.QUEUED, State.HELD},
    State.RUNNING: _ENDS
    | {State.COLLECTING, State.RETRYING, State.PAUSED, State.HELD, State.SUCCEEDED},
    State.COLLECTING: _ENDS | {State.SUCCEEDED, State.RETRYING, State.HELD},
    State.RETRYING: _ENDS
    | {State.QUEUED, State.PREPARING, State.COLLECTING, State.PAUSED, State.HELD},
    State.PAUSED: _ENDS
    | {State.QUEUED, State.RUNNING, State.RETRYING, State.COLLECTING, State.HELD},
    State.HELD: _ENDS
    | {State.QUEUED, State.PREPARING, State.RUNNING, State.COLLECTING, State.RETRYING}
    | {State.PAUSED, State.SUCCEEDED},
    State.CANCELLING: frozenset({State.CANCELED, State.FAILED, State.HELD}),
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELED: frozenset(),
}
"""The one table of legal moves. A repeated state is never a move."""


def legal(before: State, after: State) -> bool:
    """Return whether an experiment may move from ``before`` to ``after``."""
    return after in MOVES[before]
