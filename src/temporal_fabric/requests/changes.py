"""What the next attempt asks for when a failure raises resources."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from temporal_fabric.requests.quantities import growth_factor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from temporal_fabric.requests.models import ExecutionRequest

__all__ = ["after_failures", "differences", "raised"]

_UNITS = {"cpu": "cores", "memory": "GB", "disk": "GB", "gpu": "GPUs"}
_AMOUNTS = {"cpu": "cores", "memory": "size_gb", "disk": "size_gb", "gpu": "count"}


def raised(request: ExecutionRequest, reason: str) -> ExecutionRequest:
    """Return the request as the attempt after a failure should make it.

    Args:
        request: What the failed attempt asked for.
        reason: Why it failed.

    Returns:
        The same request where `retry.on` changes nothing for the reason, or where the thing
        that would grow is not asked for; else a copy with more of it, up to `max`.
    """
    rules = request.retry.on or {}
    change = next((rule for token, rule in rules.items() if token == reason), None)
    if change is None:
        return request
    body = request.to_body()
    for row in body.get("requirements", {}).get("resources", ()):
        factor = _factor(getattr(change, row["type"], None))
        key = _AMOUNTS.get(row["type"])
        if factor is not None and key is not None:
            row[key] = _grown(row.get(key, 1), factor, change.max)
    wall_s = request.limits.wall_s
    factor = _factor(change.wall_s)
    if wall_s is not None and factor is not None:
        body["limits"]["wall_s"] = _grown(wall_s, factor, change.max)
    return type(request).model_validate(body)


def after_failures(request: ExecutionRequest, reasons: Iterable[str]) -> ExecutionRequest:
    """Return the request as it is made after these failures, one after the other."""
    for reason in reasons:
        request = raised(request, reason)
    return request


def differences(before: ExecutionRequest, after: ExecutionRequest) -> list[str]:
    """Return what `raised` has changed, one phrase a thing."""
    found = [
        f"{old.type} {_amount(old):g} -> {_amount(new):g} {_UNITS[old.type]}"
        for old, new in zip(
            before.requirements.resources, after.requirements.resources, strict=True
        )
        if old != new
    ]
    if before.limits.wall_s != after.limits.wall_s:
        found.append(f"wall_s {before.limits.wall_s:g} -> {after.limits.wall_s:g}")
    return found


def _amount(resource: Any) -> float:
    return float(getattr(resource, _AMOUNTS[resource.type]))


def _factor(growth: str | None) -> float | None:
    return None if growth is None else growth_factor(growth)


def _grown(amount: Any, factor: float, ceiling: float | None) -> float:
    grown = float(amount * factor)
    if ceiling is not None:
        # What was asked for from the start is not taken back.
        grown = max(min(grown, ceiling), float(amount))
    return math.ceil(grown) if isinstance(amount, int) else grown
