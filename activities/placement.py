"""Where a request could run: a verdict per backend, in the order they would be taken.

Shared by `acquire`, which acts on it, and `plan`, which only shows it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from temporal_fabric.adapters.contract import Shortfall, Verdict
from temporal_fabric.errors import TransientBackendError
from temporal_fabric.messages import BackendVerdict, PlanAnswer
from temporal_fabric.verdicts import nearest_change

if TYPE_CHECKING:
    from temporal_fabric.activities.desk import Desk
    from temporal_fabric.requests.models import ExecutionRequest


async def place(request: ExecutionRequest, desk: Desk) -> PlanAnswer:
    """Ask every configured backend; take the first that can, in the request's own order.

    A drained one comes last: it can, but only once it is undrained. One that cannot be asked
    now keeps no request from the others.

    Raises:
        TransientBackendError: no other fits.
    """
    order = sorted(desk.backends, key=lambda name: _preference(request, name))
    verdicts: list[BackendVerdict] = []
    away: list[TransientBackendError] = []
    for name in order:
        try:
            verdicts.append(await _verdict(request, name, desk))
        except TransientBackendError as exc:
            away.append(exc)
    answer = chosen(verdicts, desk.store.root)
    if away and not answer.backend:
        # It might be the one that fits: who asks has to ask again.
        raise away[0]
    return answer


def chosen(verdicts: list[BackendVerdict], store: str) -> PlanAnswer:
    """Return the answer for verdicts in the order of preference, drained backends last."""
    fitting = sorted((verdict for verdict in verdicts if verdict.ok), key=_is_drained)
    backend = fitting[0].backend if fitting else ""
    change = "" if backend else nearest_change(verdicts)
    return PlanAnswer(backend, verdicts, change, store=store)


async def _verdict(request: ExecutionRequest, name: str, desk: Desk) -> BackendVerdict:
    adapter = desk.backend(name)
    if request.backends and _preference(request, name) == len(request.backends):
        wanted = ", ".join(request.backends)
        verdict = Verdict.of(
            Shortfall(f"is not among /backends: {wanted}", f"add {name!r} to /backends")
        )
    else:
        verdict = await adapter.can_fulfill(request)
    return BackendVerdict(
        backend=name,
        ok=verdict.ok,
        reasons=list(verdict.reasons),
        changes=[shortfall.change for shortfall in verdict.shortfalls],
        codes=[shortfall.code for shortfall in verdict.shortfalls],
        used=desk.capacity(name).used,
        slots=adapter.slots,
        drained=str(desk.capacity(name).drained or ""),
    )


def _is_drained(verdict: BackendVerdict) -> bool:
    return bool(verdict.drained)


def _preference(request: ExecutionRequest, name: str) -> int:
    """Return the place of a backend in the request's list, the list's length where absent."""
    short = name.partition("@")[0]
    for place_, wanted in enumerate(request.backends):
        if wanted in {name, short}:
            return place_
    return len(request.backends)
