"""Whether a tenant may start one more experiment, by the engine's own count.

Nothing is counted here: Temporal's visibility knows what is open and what was started when.
Each limit that is set costs one count. Only built-in fields are asked for, so it works where
our search attributes are off; then starts that ended FAILED do not count towards the rate,
because a refused start cannot be told from a failed one.

An experiment is counted against those that were started before it: of a burst the first ones
are accepted and the rest refused, however many are asked about at the same time. Its own id
never counts, so submitting the same again is never refused for what it is itself. Visibility
lags behind by some milliseconds on SQL and by about a second on Elasticsearch: so much of a
burst may be accepted too much.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from temporalio import activity

from temporal_fabric import names, tenants
from temporal_fabric.errors import RequestRejected

if TYPE_CHECKING:
    from temporal_fabric.activities.desk import Desk
    from temporal_fabric.errors import Problem
    from temporal_fabric.requests.models import ExecutionRequest
    from temporal_fabric.tenants import TenantConfig

_WINDOW = timedelta(minutes=1)
_WAITS_S = (1, 2, 5, 10, 20, 30, 60)


def known(tenant: str, desk: Desk) -> TenantConfig:
    """Return what a tenant may have.

    Raises:
        RequestRejected: E_TENANT, it is not known here.
    """
    found = desk.settings.tenants.of(tenant)
    if found is None:
        raise RequestRejected([tenants.unknown(tenant)])
    return found


async def check_tenant(
    request: ExecutionRequest, workflow_id: str, desk: Desk, *, limits: bool = True
) -> bool:
    """Refuse a run that its tenant may not start.

    Args:
        request: The admitted request.
        workflow_id: The run that asks; a workflow that is not started yet asks for itself,
            before its start, and is asked again by its first activity.
        desk: The worker's settings.
        limits: Whether it is one experiment more; False only asks who asks.

    Returns:
        Whether anything was counted: the answer then holds for this request alone.

    Raises:
        RequestRejected: E_TENANT, E_QUOTA or E_RATE.
        RPCError: the server does not answer, or not for this worker: nothing is decided.
    """
    allowed = known(request.tenant, desk)
    if allowed == tenants.TenantConfig():
        return False
    started, principal = datetime.now(UTC), None
    if activity.info().workflow_id == workflow_id:
        started, principal = await _start(workflow_id)
    if allowed.principals and principal is not None and principal not in allowed.principals:
        raise RequestRejected([tenants.not_for(request.tenant, principal)])
    if not limits:
        return False
    counts = _Counts(request.tenant, workflow_id, started, attributes=desk.search_attributes)
    problems = [*await counts.quota(allowed.max_open), *await counts.rate(allowed.max_per_minute)]
    if problems:
        raise RequestRejected(problems)
    return True


async def _start(workflow_id: str) -> tuple[datetime, str]:
    """Return when this run was started, and by whom; nobody where the server does not say."""
    run_id = activity.info().workflow_run_id
    handle = activity.client().get_workflow_handle(workflow_id, run_id=run_id)
    async for event in handle.fetch_history_events(page_size=1):
        # The server's own word, from the caller's credential: `identity` is the caller's word.
        return event.event_time.ToDatetime(UTC), event.principal.name
    return datetime.now(UTC), ""


class _Counts:
    """What Temporal knows of a tenant's other experiments, up to one moment."""

    def __init__(self, tenant: str, workflow_id: str, until: datetime, *, attributes: bool) -> None:
        self._tenant = tenant
        self._until = until
        self._others = (
            f"WorkflowType = '{names.WORKFLOW_EXPERIMENT}' AND WorkflowId STARTS_WITH "
            f"'{names.workflow_id(tenant, '')}' AND WorkflowId != '{workflow_id}'"
        )
        ran = f"{names.SA_TENANT} IS NOT NULL" if attributes else "ExecutionStatus != 'Failed'"
        self._accepted = f"(CloseTime IS NULL OR {ran})"

    async def quota(self, limit: int | None) -> list[Problem]:
        """Return the refusal where too many are open."""
        if limit is None:
            return []
        found = await self._count("CloseTime IS NULL", self._until)
        return [tenants.too_many_open(self._tenant, limit, found)] if found >= limit else []

    async def rate(self, limit: int | None) -> list[Problem]:
        """Return the refusal where too many were started in the last minute."""
        if limit is None:
            return []
        since = self._until - _WINDOW
        window = f"{self._accepted} AND StartTime > '{since.isoformat()}'"
        found = await self._count(window, self._until)
        if found < limit:
            return []
        # The first of these moments at which enough of them are older than a minute.
        for wait in _WAITS_S[:-1]:
            gone = await self._count(window, since + timedelta(seconds=wait))
            if found - gone < limit:
                return [tenants.too_fast(self._tenant, limit, found, wait)]
        return [tenants.too_fast(self._tenant, limit, found, _WAITS_S[-1])]

    async def _count(self, condition: str, before: datetime) -> int:
        query = f"{self._others} AND {condition} AND StartTime < '{before.isoformat()}'"
        return (await activity.client().count_workflows(query)).count
