"""Tell one receiver of one moment; Temporal repeats it until it is taken or a day has passed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from temporal_fabric import names
from temporal_fabric.activities.heartbeat import beating
from temporal_fabric.errors import PermanentBackendError, TransientBackendError
from temporal_fabric.messages import Notice, NotifyRule
from temporal_fabric.notices import post
from temporal_fabric.states import FINAL

if TYPE_CHECKING:
    from collections.abc import Iterable

    from temporal_fabric.activities.desk import Desk
    from temporal_fabric.requests.models import ExecutionRequest

_THREADS = 4


class Notify:
    """The ``notify`` activity of one worker."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        # A name service that does not answer must not hold the threads of experiments.
        self._threads = ThreadPoolExecutor(_THREADS, "notify")

    @activity.defn(name=names.ACTIVITY_NOTIFY)
    async def notify(self, notice: Notice) -> int:
        """Send one notice; return the status that the receiver answered.

        Raises:
            ApplicationError: non-retryable, NoticeRefused: its address is not allowed, it
                redirects, or it wants no more; retryable, NoticeNotTaken: anything else.
        """
        async with beating():
            try:
                return await post(notice, self._desk.settings.notify, self._threads)
            except PermanentBackendError as exc:
                raise ApplicationError(str(exc), type="NoticeRefused", non_retryable=True) from exc
            except TransientBackendError as exc:
                # Benign: a receiver that is away is no fault of this worker, and fills no log.
                raise ApplicationError(
                    str(exc), type="NoticeNotTaken", category=ApplicationErrorCategory.BENIGN
                ) from exc


def rules(request: ExecutionRequest) -> list[NotifyRule]:
    """Return who is told of what, as the workflow decides it."""
    return [NotifyRule(entry.url, _states(entry.on)) for entry in request.notify]


def _states(on: Iterable[str]) -> list[str]:
    return sorted({state for name in on for state in (FINAL if name == "ended" else (name,))})
