"""What a run writes down: the sparse events of a capsule's ``events.parquet``."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["RunEvent"]


class RunEvent(StrEnum):
    """Every event that a run may record."""

    SPEC_LINT_FAIL = "SPEC_LINT_FAIL"
    CERT_FAIL = "CERT_FAIL"
    CERT_PASS = "CERT_PASS"  # noqa: S105 - not a password
    TUNER_MOVE_TRY = "TUNER_MOVE_TRY"
    TUNER_MOVE_REJECTED = "TUNER_MOVE_REJECTED"
    ROLLBACK = "ROLLBACK"
    TIMEOUT = "TIMEOUT"
    CANCELLED = "CANCELLED"
    RUN_STARTED = "RUN_STARTED"
    RUN_FINISHED = "RUN_FINISHED"
    LENS_SELECTED = "LENS_SELECTED"
    SCALE_ACTIVATED = "SCALE_ACTIVATED"
    FLOW_POLICY_APPLIED = "FLOW_POLICY_APPLIED"
