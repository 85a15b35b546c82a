"""Which task the current activity works for: every log line of it says so."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator


@dataclass(frozen=True, slots=True)
class TaskContext:
    """Ids of one task; an id that is not known yet is empty."""

    tenant: str = ""
    request_id: str = ""
    epoch: int = 0
    workflow_id: str = ""
    run_id: str = ""

    def fields(self) -> dict[str, Any]:
        """Return the ids that are known."""
        return {name: value for name, value in asdict(self).items() if value}


_current: ContextVar[TaskContext] = ContextVar("task")
_NONE = TaskContext()


def current() -> TaskContext:
    """Return the ids of the task at hand; all empty outside one."""
    return _current.get(_NONE)


@contextmanager
def task(about: TaskContext) -> Generator[None]:
    """Work for one task: what is logged within carries its ids."""
    token = _current.set(about)
    try:
        yield
    finally:
        _current.reset(token)
