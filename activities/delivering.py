"""Seal a run whose outputs have targets: prepare, seal, then name them.

The order makes the manifest the commit. Before it nothing bears its final name; after it the
names are given, however often a worker dies meanwhile.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from temporalio.exceptions import ApplicationError

from temporal_fabric import names
from temporal_fabric.artifacts.delivery import Delivery
from temporal_fabric.capsule.writing import failed, manifest_of
from temporal_fabric.errors import ArtifactFailed, StaleEpoch
from temporal_fabric.states import State
from temporal_fabric.workplace import Workplace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from temporal_fabric.activities.desk import Desk
    from temporal_fabric.capsule.writing import CapsuleWriter
    from temporal_fabric.messages import Sealed
    from temporal_fabric.outcomes import ExperimentResult

_SHOWN = 5
"""Targets that are named to a person."""


async def deliver_and_seal(
    desk: Desk,
    writer: CapsuleWriter,
    result: ExperimentResult,
    body: Mapping[str, Any],
    run: Mapping[str, str],
) -> tuple[Sealed, dict[str, Any]]:
    """Seal a capsule and store the outputs that have a target; see `CapsuleWriter.seal`.

    An output that cannot be stored makes the run FAILED (OUTPUT_MISSING), and then none is.

    Raises:
        StoreError: the store is full or cannot be reached.
        TransientBackendError: a target's server does not answer.
        ApplicationError: non-retryable, where a newer epoch was granted meanwhile.
        StaleEpoch: the run was sealed elsewhere.
    """
    delivery = _delivery(desk, result)
    if delivery is None or await _sealed_state(desk, result) not in {"", State.SUCCEEDED}:
        return await writer.seal(result, body, run)
    await _fence(desk, result, run)
    try:
        await asyncio.to_thread(delivery.prepare)
    except ArtifactFailed as exc:
        if await _sealed_state(desk, result):
            raise  # committed: repeated until the target takes it
        result = failed(result, exc.reason, str(exc))
    try:
        sealed, outcome = await writer.seal(result, body, run)
    except StaleEpoch:
        await asyncio.to_thread(delivery.discard)
        raise
    if outcome["state"] != State.SUCCEEDED:
        await asyncio.to_thread(delivery.discard)
        return (sealed, outcome)
    await _fence(desk, result, run)
    await asyncio.to_thread(delivery.commit)
    return (sealed, outcome)


async def name_from_elsewhere(desk: Desk, result: ExperimentResult, run: Mapping[str, str]) -> str:
    """Give the outputs of a committed run their names, from another host than the run's own.

    Returns:
        What keeps this host from it: targets that it does not see, or the first that it may not
        change. Empty where all is done.

    Raises:
        TransientBackendError: a target's server does not answer.
    """
    delivery = _delivery(desk, result)
    if delivery is None or await _sealed_state(desk, result) != State.SUCCEEDED:
        return ""
    try:
        record = desk.record(result.tenant, result.request_id)
        await record.require_newest(result.epoch, run["run_id"])
    except StaleEpoch:
        return ""  # what a newer epoch has stored there may not be replaced
    if unseen := await asyncio.to_thread(delivery.unseen):
        more = len(unseen) - _SHOWN
        return ", ".join(unseen[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
    try:
        await asyncio.to_thread(delivery.commit)
    except ArtifactFailed as exc:
        return str(exc)
    return ""


def _delivery(desk: Desk, result: ExperimentResult) -> Delivery | None:
    wanted = tuple(output for output in result.outputs if output.target_uri)
    if result.state != State.SUCCEEDED or not wanted:
        return None
    place = Workplace.of(desk.settings.runs, result.tenant, result.request_id, result.epoch)
    mark = f"{result.tenant}/{result.request_id}/{result.epoch}"
    return Delivery(wanted, place.output, mark)


async def _sealed_state(desk: Desk, result: ExperimentResult) -> str:
    """Return the state that an earlier seal of this run committed; empty where there is none."""
    key = result.capsule.removeprefix(f"{desk.store.root}/")
    if await manifest_of(desk.store, key) is None:
        return ""
    return str(json.loads(await desk.store.read(f"{key}/result.json") or b"{}")["state"])


async def _fence(desk: Desk, result: ExperimentResult, run: Mapping[str, str]) -> None:
    record = desk.record(result.tenant, result.request_id)
    try:
        await record.require_newest(result.epoch, run["run_id"])
    except StaleEpoch as exc:
        raise ApplicationError(str(exc), type=names.STALE_GRANT, non_retryable=True) from exc
