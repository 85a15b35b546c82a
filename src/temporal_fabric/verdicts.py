"""Why a request does not run: refused by every backend, or waiting for something."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from temporal_fabric.errors import Problem, RequestRejected
from temporal_fabric.states import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from temporal_fabric.messages import BackendVerdict, PlanAnswer

_PATH = "/requirements"
_PATHS = {"E_ISOLATION": "/payload", "E_HOSTKEY": "/backends"}
"""What of a request a refusal is about."""


def nearest_change(verdicts: Sequence[BackendVerdict]) -> str:
    """Return the fewest changes that would make one backend fit, or an empty text."""
    nearest = _nearest(verdicts)
    return f"for {nearest.backend}: {'; '.join(nearest.changes)}" if nearest else ""


def unplaceable(answer: PlanAnswer) -> RequestRejected:
    """Return the refusal with every backend's verdict and the nearest change."""
    verdicts = "; ".join(f"{v.backend}: {', '.join(v.reasons)}" for v in answer.verdicts)
    message = f"no configured backend could ever run this. {verdicts or 'None is configured'}."
    if answer.nearest_change:
        message += f" The nearest change that would fit, {answer.nearest_change}"
    code = refusal_code(answer)
    return RequestRejected([Problem(code, _PATHS.get(code, _PATH), message)])


def refusal_code(answer: PlanAnswer) -> str:
    """Return the error code of a refusal.

    It is E_NO_BACKEND, or a more precise one where that is all that stands between the request
    and the backend that comes nearest.
    """
    nearest = _nearest(answer.verdicts)
    codes = set(nearest.codes) if nearest else set[str]()
    return (codes.pop() if len(codes) == 1 else "") or "E_NO_BACKEND"


def waits_for(live: Mapping[str, Any]) -> str:
    """Return in words what a queued request waits for; empty where nothing says so.

    Args:
        live: The heartbeat of its `acquire`.
    """
    if live.get("reason") == Reason.DEPENDENCY:
        return f"waits until {live['waits_for']} has ended"
    if live.get("reason") == Reason.BACKEND_DOWN:
        return "waits for a host that can run it: none is there now"
    if live.get("reason") == Reason.DRAINED:
        return f"waits for {drained_text(live['drained'])}"
    if live.get("reason") == Reason.WAITING_FOR_CAPACITY:
        what = f"{live['gpus']} GPU{'s' * (live['gpus'] > 1)}" if live.get("gpus") else "a place"
        return f"waits for {what} on {live['backend']}, {live['ahead']} ahead of it"
    return ""


def drained_text(drained: Mapping[str, str]) -> str:
    """Return the drained backends with what is said of each."""
    return "; ".join(f"{backend}, {told}" for backend, told in drained.items())


def drained_change(plan: PlanAnswer) -> str:
    """Return what would start a request that only drained backends can run; else empty."""
    fitting = [verdict for verdict in plan.verdicts if verdict.ok]
    if not fitting or not all(verdict.drained for verdict in fitting):
        return ""
    change = f"temporal-fabric undrain {fitting[0].backend}"
    other = nearest_change(plan.verdicts)
    return f"{change}; or on another backend, {other}" if other else change


def _nearest(verdicts: Sequence[BackendVerdict]) -> BackendVerdict | None:
    refusing = [verdict for verdict in verdicts if not verdict.ok]
    return min(refusing, key=lambda verdict: len(verdict.changes), default=None)
