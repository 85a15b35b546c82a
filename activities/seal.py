"""Seal the capsule of a run and record its outcome: the last activity of every run."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from temporalio import activity
from temporalio.exceptions import ApplicationError

from temporal_fabric import names
from temporal_fabric.activities.delivering import deliver_and_seal, name_from_elsewhere
from temporal_fabric.activities.desk import Desk, rejection
from temporal_fabric.activities.heartbeat import beating
from temporal_fabric.activities.notify import rules
from temporal_fabric.activities.recording import catch_up
from temporal_fabric.activities.tenancy import check_tenant
from temporal_fabric.adapters.contract import AttemptKey
from temporal_fabric.capsule.manifest import MANIFEST, Manifest
from temporal_fabric.capsule.writing import CapsuleWriter, manifest_of
from temporal_fabric.clock import now
from temporal_fabric.errors import RequestRejected, StaleEpoch
from temporal_fabric.failpoints import FailPoint, reach
from temporal_fabric.messages import NotifyRule, Sealed, SealInput
from temporal_fabric.requests import admit
from temporal_fabric.workplace import Workplace

if TYPE_CHECKING:
    from temporal_fabric.outcomes import ExperimentResult
    from temporal_fabric.record import RequestRecord

_ELSEWHERE = "-elsewhere"
"""Ends the name of a capsule that was sealed without the files of its run's host."""


class Seal:
    """The ``seal`` activity of one worker."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @activity.defn(name=names.ACTIVITY_SEAL)
    async def seal(self, asked: SealInput) -> Sealed:
        """Write the capsule, record the outcome, then free what the host kept.

        Raises:
            ApplicationError: non-retryable, where a run was cancelled before admission and
                its body is not a request.
        """
        async with beating():
            info = activity.info()
            if info.workflow_run_id is None or info.workflow_id is None:
                raise ApplicationError("seal is an activity of an experiment", non_retryable=True)
            run = {"workflow_id": info.workflow_id, "run_id": info.workflow_run_id}
            if asked.silent:
                return await seal_without_host(self._desk, asked, run)
            reach(FailPoint.SEAL_TAKEN)
            if asked.result.capsule:
                return await seal_run(self._desk, asked.result, run)
            result, told = await self._admit_late(asked, **run)
            return replace(await seal_run(self._desk, result, run), notify=told)

    async def _admit_late(
        self, asked: SealInput, workflow_id: str, run_id: str
    ) -> tuple[ExperimentResult, list[NotifyRule]]:
        """Give a run that was cancelled before any grant its record, epoch and capsule.

        Returns:
            The result that is sealed, and who is told of it.
        """
        try:
            admission = await asyncio.to_thread(admit, asked.body, workflow_id=workflow_id)
            await check_tenant(admission.request, workflow_id, self._desk, limits=False)
        except RequestRejected as exc:
            raise rejection(exc) from exc
        request = admission.request
        record = self._desk.record(request.tenant, request.id)
        await record.open(admission.digest, request.to_body())
        epoch = await record.allocate(run_id, 0, "", workflow_id=workflow_id)
        await record.mark_ended(epoch.epoch, "never placed")
        root = self._desk.store.root
        result = replace(
            asked.result,
            tenant=request.tenant,
            request_id=request.id,
            digest=admission.digest,
            epoch=epoch.epoch,
            capsule=f"{root}/capsules/{request.tenant}/{request.id}/{epoch.epoch}",
        )
        return (result, rules(request))


async def seal_without_host(desk: Desk, asked: SealInput, run: dict[str, str]) -> Sealed:
    """Seal a run whose files lie on a silent host, as far as that can be done without it.

    What the host has committed is finished. Otherwise nothing is done, unless somebody has said
    that the run ends without it: then its own capsule is given up for another one, so that the
    host finds its manifest taken, however late it wakes up in the middle of its seal.

    Returns:
        Without a capsule where nothing could be done.
    """
    result, uri = asked.result, f"{asked.result.capsule}{_ELSEWHERE}"
    if (done := await _finished(desk, asked, run)) is not None:
        return done
    if asked.instead is None:
        return Sealed("", "")
    given_up = Manifest({}, (), now(), given_up_for=uri).dump()
    key = result.capsule.removeprefix(f"{desk.store.root}/")
    created = await desk.store.create(f"{key}/{MANIFEST}", given_up)
    if not created and (done := await _finished(desk, asked, run)) is not None:
        return done
    sealed = await seal_run(desk, replace(asked.instead, capsule=uri), run)
    return replace(sealed, instead=True)


async def _finished(desk: Desk, asked: SealInput, run: dict[str, str]) -> Sealed | None:
    """Finish a run that its host has sealed; None where it has not.

    Returns:
        Without a capsule where outputs have targets that this host does not see, unless somebody
        has said that they are not waited for.
    """
    result = asked.result
    if outcome := await desk.record(result.tenant, result.request_id).outcome(run["run_id"]):
        own = str(outcome["capsule"]) == result.capsule
        return await seal_run(desk, result, run) if own else None
    key = result.capsule.removeprefix(f"{desk.store.root}/")
    try:
        if await manifest_of(desk.store, key) is None:
            return None
    except StaleEpoch:
        return None
    unnamed = await name_from_elsewhere(desk, result, run)
    if unnamed and asked.instead is None:
        return Sealed("", "", unnamed=unnamed)
    return replace(await seal_run(desk, result, run, delivered=True), unnamed=unnamed)


async def seal_run(
    desk: Desk, result: ExperimentResult, run: dict[str, str], *, delivered: bool = False
) -> Sealed:
    """Seal one run; repeating it after any crash gives the same capsule.

    Args:
        desk: The worker's parts.
        result: How the run ends.
        run: Workflow id and run id.
        delivered: Whether its outputs have their names, as far as they will.

    Raises:
        ApplicationError: retryable, the capsule belongs to another store; or not, the run was
            sealed elsewhere, or a newer epoch was granted.
        StoreError: the store is full or cannot be reached.
    """
    try:
        return await _seal_run(desk, result, run, delivered=delivered)
    except StaleEpoch as exc:
        # Nobody waits for this activity any more, and it may be cancelled at any moment.
        record = desk.record(result.tenant, result.request_id)
        await asyncio.shield(free(desk, record, result.epoch))
        raise ApplicationError(str(exc), type=names.STALE_GRANT, non_retryable=True) from exc


async def _seal_run(
    desk: Desk, result: ExperimentResult, run: dict[str, str], *, delivered: bool
) -> Sealed:
    store, record = desk.store, desk.record(result.tenant, result.request_id)
    if not result.capsule.startswith(f"{store.root}/"):
        raise ApplicationError(
            f"the capsule belongs to another store [capsule={result.capsule}, "
            f"store={store.root}]: give every worker the same 'store'"
        )
    key = result.capsule.removeprefix(f"{store.root}/")
    writer = CapsuleWriter(store, key, desk.settings.runs)
    body = await record.body(result.digest)
    await catch_up(desk, body, result)
    if await record.outcome(run["run_id"]) is not None:
        # Delivered before, and what was delivered may be gone from the host by now.
        sealed, _ = await writer.seal(result, body, run)
    else:
        seal = writer.seal if delivered else partial(deliver_and_seal, desk, writer)
        sealed, outcome = await seal(result, body, run)
        await record.record_outcome(run["run_id"], outcome)
        reach(FailPoint.SEAL_RECORDED)
        await desk.observer.ended(outcome, next(iter(body["payload"])), run)
    await free(desk, record, result.epoch)
    reach(FailPoint.SEAL_FREED)
    return sealed


async def free(desk: Desk, record: RequestRecord, epoch: int) -> None:
    """Drop what the host kept of a run, and of those before it: the capsule holds it now.

    A run that was reset is sealed while the next one may already work under a later epoch.
    """
    epochs = await record.epochs()
    own = {known.run_id for known in epochs if known.epoch == epoch}
    later = [known.epoch for known in epochs if known.epoch > epoch and known.run_id not in own]
    for known in epochs:
        adapter = desk.backends.get(known.backend)
        if adapter is not None and known.epoch not in later:
            await adapter.forget(AttemptKey(record.tenant, record.request_id, known.epoch))
    if not later:
        await desk.copies.drop(record.tenant, record.request_id)
    place = Workplace.of(desk.settings.runs, record.tenant, record.request_id, epoch)
    await asyncio.to_thread(place.remove, later)
