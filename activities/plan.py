"""Say where a request could run, without any effect: a standalone activity."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from temporalio import activity

from temporal_fabric import names
from temporal_fabric.activities.dependencies import check_upstreams
from temporal_fabric.activities.desk import rejection
from temporal_fabric.activities.elsewhere import with_neighbours
from temporal_fabric.activities.placement import place
from temporal_fabric.activities.tenancy import check_tenant
from temporal_fabric.errors import RequestRejected
from temporal_fabric.messages import PlanAnswer
from temporal_fabric.requests import admit

if TYPE_CHECKING:
    from temporal_fabric.activities.desk import Desk


class Plan:
    """The ``plan`` and ``judge`` activities of one worker."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @activity.defn(name=names.ACTIVITY_PLAN)
    async def plan(self, body: Any) -> PlanAnswer:
        """Return a verdict per backend, in the order in which they would be taken.

        Where none of this host can ever run it, those of the pool's other hosts follow.

        Raises:
            ApplicationError: non-retryable, the body is refused: type = first error code.
        """
        try:
            request = (await asyncio.to_thread(admit, body)).request
            workflow_id = names.workflow_id(request.tenant, request.id)
            counted = await check_tenant(request, workflow_id, self._desk)
            await check_upstreams(request, self._desk)
        except RequestRejected as exc:
            raise rejection(exc) from exc
        answer = await place(request, self._desk)
        if not answer.backend:
            queue = names.pool_queue(request.pool)
            answer = await with_neighbours(answer, request, self._desk.host, queue)
        return replace(answer, counted=counted)

    @activity.defn(name=names.ACTIVITY_JUDGE)
    async def judge(self, body: Any) -> PlanAnswer:
        """Return a verdict per backend of this host alone, for another worker of its pool."""
        return await place((await asyncio.to_thread(admit, body)).request, self._desk)
