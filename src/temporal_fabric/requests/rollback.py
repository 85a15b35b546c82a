"""What undoes the effects of a payload: the request's ``rollback``."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from temporal_fabric.requests import limits
from temporal_fabric.requests.fields import Items, Model, Name, Seconds
from temporal_fabric.requests.payloads import Command, Env

if TYPE_CHECKING:
    from temporal_fabric.requests.models import ExecutionRequest

__all__ = ["Compensation", "Rollback", "compensating"]

_OF_THE_PAYLOAD = ("artifacts", "budget_usd", "deadline", "queue_timeout", "rollback", "notify")
"""What a compensation does not take over: it runs whatever the time, and makes no outputs."""

_LIKE_THE_PROCESS = ("isolation", "network", "workdir")


class Compensation(Model):
    """A program that undoes one effect of the payload.

    It runs once the experiment has failed or was cancelled and nothing of the payload runs.
    """

    name: Name
    command: Command
    """The program, then its arguments; no shell reads them."""
    env: Env = Field(default={})
    """Variables besides those of the payload."""
    wall_s: Seconds | None = None
    """How long one try may take."""
    max_attempts: int = Field(default=3, ge=1, le=1000)
    """Tries in all, after which it counts as failed."""
    on_failure: Literal["report", "hold"] = "report"
    """What follows once it has failed: the next one, or a question to a person."""


Rollback = Annotated[tuple[Compensation, ...], Items, Field(max_length=limits.COMPENSATIONS)]


def compensating(request: "ExecutionRequest", name: str) -> "ExecutionRequest":
    """Return the request that runs one compensation of another request.

    It has the payload's resources, environment, secrets and isolation.

    Args:
        request: The experiment's own.
        name: Which of its compensations.

    Raises:
        StopIteration: it has none of that name.
    """
    step = next(step for step in request.rollback if step.name == name)
    body = request.to_body()
    for key in _OF_THE_PAYLOAD:
        body.pop(key, None)
    own: dict[str, Any] = body["payload"][request.kind]
    kept = _LIKE_THE_PROCESS if request.kind in {"process", "python"} else ()
    process: dict[str, Any] = {key: own[key] for key in kept if key in own}
    process |= {"command": list(step.command), "env": own.get("env", {}) | step.env}
    body["payload"] = {"process": process}
    body["limits"] = body.get("limits", {}) | {"wall_s": step.wall_s}
    return type(request).model_validate(body)
