"""What the journal of an experiment on a device says of one attempt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from temporal_fabric.adapters.contract import JobStatus, Phase
from temporal_fabric.states import Reason

if TYPE_CHECKING:
    from temporal_fabric.adapters.lab_journal import Standing


def status_of(standing: Standing, epoch: int) -> JobStatus:
    """Return the state of one attempt as its journal tells it."""
    attempt = standing.attempts.get(epoch)
    if attempt is None:
        return JobStatus(Phase.ABSENT)
    end = attempt.end
    if end is None and attempt.plan is None:
        # Forgotten, or stopped, before it began.
        return JobStatus(Phase.LOST, reason=Reason.LOST, message="it never began")
    if end is None:
        return JobStatus(
            Phase.RUNNING,
            attempt.run,
            started_at=attempt.started_at,
            paused=attempt.pauses.since is not None,
            paused_s=attempt.pauses.seconds(),
        )
    lost = end["reason"] == Reason.LOST and not end["question"]
    return JobStatus(
        Phase.LOST if lost else Phase.ENDED,
        attempt.run,
        exit_code=end["code"],
        reason=end["reason"],
        message=end["message"],
        question=end["question"],
        started_at=attempt.started_at,
        ended_at=attempt.ended_at,
        paused_s=attempt.pauses.seconds(),
    )
