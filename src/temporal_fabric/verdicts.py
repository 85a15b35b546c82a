"""Why a request does not run: refused by every backend, or waiting for something."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from temporal_fabric.errors import Problem, RequestRejected
from temporal_fabric.states import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from temporal_fabric.messages import BackendVerdict, PlanAnswer


def nearest_change(verdicts: Sequence[BackendVerdict]) -> str:
    """Return the fewest changes that would make one backend fit, or an empty text."""
    refusing = [verdict for verdict in verdicts if not verdict.ok]
    if not refusing:
        return ""
    nearest = min(refusing, key=lambda verdict: len(verdict.changes))
    return f"for {nearest.backend}: {'; '.join(nearest.changes)}"


def unplaceable(answer: PlanAnswer) -> RequestRejected:
    """Return E_NO_BACKEND with every backend's verdict and the nearest change."""
    verdicts = "; ".join(f"{v.backend}: {', '.join(v.reasons)}" for v in answer.verdicts)
    message = f"no configured backend could ever run this. {verdicts or 'None is configured'}."
    if answer.nearest_change:
        message += f" The nearest change that would fit, {answer.nearest_change}"
    return RequestRejected([Problem("E_NO_BACKEND", "/requirements", message)])


def waits_for(live: Mapping[str, Any]) -> str:
    """Return in words what a queued request waits for; empty where nothing says so.

    Args:
        live: The heartbeat of its `acquire`.
    """
    if live.get("reason") == Reason.DEPENDENCY:
        return f"waits until {live['waits_for']} has ended"
    if live.get("reason") == Reason.WAITING_FOR_CAPACITY:
        return f"waits for a place on {live['backend']}, {live['ahead']} ahead of it"
    return ""
