"""Runs that ended behind the fabric's back: terminated in Temporal's UI, reset, timed out.

Temporal's own buttons close a run without asking. What still runs for it is killed, and the
capsule is sealed as LOST, so that every accepted request ends with one outcome.
"""

from __future__ import annotations

import asyncio
import logging
from itertools import count
from typing import TYPE_CHECKING

from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from temporal_fabric.activities.seal import free, seal_run
from temporal_fabric.adapters.contract import AttemptKey
from temporal_fabric.clock import now
from temporal_fabric.errors import FabricError
from temporal_fabric.messages import ENDED
from temporal_fabric.outcomes import ExperimentResult, Moment
from temporal_fabric.recorder.flow_runs import is_run
from temporal_fabric.states import Reason, State
from temporal_fabric.workplace import Workplace

if TYPE_CHECKING:
    from temporalio.client import Client

    from temporal_fabric.activities.desk import Desk
    from temporal_fabric.record import Epoch

log = logging.getLogger(__name__)

_GRACE_S = 10.0
_LOOK_S = 10.0
_LOOKS_A_SWEEP = 3


async def is_closed(client: Client, workflow_id: str, run_id: str) -> bool:
    """Say whether a run has ended, also where Temporal has forgotten it.

    An activity also hears "not found" when only its own attempt timed out, while another
    supervises the same payload: then the run is open, and nothing may be killed.
    """
    try:
        found = await client.get_workflow_handle(workflow_id, run_id=run_id).describe()
    except RPCError as exc:
        if exc.status == RPCStatusCode.NOT_FOUND:
            return True
        raise
    return found.status is not WorkflowExecutionStatus.RUNNING


async def close(desk: Desk, client: Client, key: AttemptKey) -> bool:
    """Kill one attempt that nothing can come of any more; say whether that was so.

    Its run is closed, then it is sealed too where that was not done; or the run goes on under
    a later epoch, or without this one, because somebody said so while this host was silent.
    """
    record = desk.record(key.tenant, key.request_id)
    epochs = await record.epochs()
    epoch = next((known for known in epochs if known.epoch == key.epoch), None)
    if epoch is None:
        return False
    given_up = epoch != epochs[-1] or await record.end(key.epoch) not in {None, ENDED}
    closed = await is_closed(client, epoch.workflow_id, epoch.run_id)
    if not closed and not given_up:
        return False
    await desk.forbid_flow(key)
    await desk.backend(epoch.backend).terminate(key, _GRACE_S)
    await record.mark_ended(key.epoch, "run closed" if closed else "given up")
    if not closed:
        return True
    if await record.outcome(epoch.run_id) is not None:
        await free(desk, record, key.epoch)  # it was sealed elsewhere, while this host was silent
    else:
        log.warning("sealing %s as LOST: its run was closed by other means", key)
        run = {"workflow_id": epoch.workflow_id, "run_id": epoch.run_id}
        await seal_run(desk, await _lost(desk, key, epoch), run)
    return True


async def sweep(desk: Desk, client: Client, *, flows_only: bool = False) -> None:
    """Close what lies on this host of runs that have ended meanwhile."""
    for key in _left_here(desk):
        if flows_only and not _is_flow(desk, key):
            continue
        try:
            await close(desk, client, key)
        except (FabricError, RPCError) as exc:
            # The next start sweeps again; a damaged record must not keep the worker down.
            log.warning("could not look at %s: %s", key, exc)


async def watch(desk: Desk, client: Client) -> None:
    """Sweep again and again: flows often, between two steps of one no activity supervises it.

    What else was settled while this host was silent is mostly found when its activity next says
    that it lives; but that may have ended by then.
    """
    for look in count():
        await sweep(desk, client, flows_only=look % _LOOKS_A_SWEEP != 0)
        await asyncio.sleep(_LOOK_S)


def _is_flow(desk: Desk, key: AttemptKey) -> bool:
    place = Workplace.of(desk.settings.runs, key.tenant, key.request_id, key.epoch)
    return is_run(place.checkpoints)


def _left_here(desk: Desk) -> list[AttemptKey]:
    folders = desk.settings.runs.glob("*/*/*")
    return [
        AttemptKey(path.parent.parent.name, path.parent.name, int(path.name))
        for path in sorted(folders)
        if path.name.isdecimal()
    ]


async def _lost(desk: Desk, key: AttemptKey, epoch: Epoch) -> ExperimentResult:
    record, at = desk.record(key.tenant, key.request_id), now()
    first = min(e.epoch for e in await record.epochs() if e.run_id == epoch.run_id)
    moment = Moment(State.FAILED, at, Reason.LOST, epoch.backend, key.epoch)
    return ExperimentResult(
        state=State.FAILED,
        tenant=key.tenant,
        request_id=key.request_id,
        digest=await record.digest() or "",
        reason=Reason.LOST,
        message="the workflow was closed by other means than cancellation",
        backend=epoch.backend,
        epoch=key.epoch,
        started_at=epoch.at,
        ended_at=at,
        capsule=f"{desk.store.root}/capsules/{key.tenant}/{key.request_id}/{first}",
        timeline=[moment],
    )
