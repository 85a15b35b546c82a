"""The request that one compensation is run by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from temporal_fabric.requests.models import ExecutionRequest

_OF_THE_PAYLOAD = ("artifacts", "budget_usd", "deadline", "queue_timeout", "rollback", "notify")
"""What a compensation does not take over: it runs whatever the time, and makes no outputs."""

_LIKE_THE_PROCESS = ("isolation", "network", "workdir")


def compensating(request: ExecutionRequest, name: str) -> ExecutionRequest:
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
