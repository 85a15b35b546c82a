"""Telling one receiver of one moment of an experiment, beside the experiment and after it."""

from __future__ import annotations

from typing import Any

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    # Our own modules: without I/O and without a third-party import.
    from temporal_fabric import names
    from temporal_fabric.workflows import calls


@workflow.defn(name=names.WORKFLOW_NOTIFY)
class Notify:
    """One `Notice`: completed once the receiver has taken it, failed where it never did."""

    @workflow.run
    async def run(self, notice: Any = None) -> None:
        """Hand the notice to the activity, which Temporal repeats until it is taken.

        Args:
            notice: A `Notice`, unread: a body that does not decode fails the activity.

        Raises:
            ActivityError: the receiver refused it, or did not take it within a day.
        """
        await calls.notify(notice)
