"""Ending a loop of calls for certain once its task was cancelled."""

from __future__ import annotations

import asyncio


def check_cancelled() -> None:
    """Raise where the current task was cancelled and nobody noticed.

    A call that ends in the very moment of the cancellation returns its answer and swallows it.
    A loop of such calls, which waits for nothing else, would go on for ever.

    Raises:
        asyncio.CancelledError: the task was cancelled.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
