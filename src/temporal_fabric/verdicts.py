"""The refusal of a request that no backend could ever run, with everything needed to mend it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from temporal_fabric.errors import Problem, RequestRejected

if TYPE_CHECKING:
    from collections.abc import Sequence

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
