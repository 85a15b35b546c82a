"""The request record in each kind of store: one body, rising epochs, one outcome."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from temporal_fabric.errors import StaleEpoch, StoreConflict, StoreError
from temporal_fabric.record import RequestRecord
from temporal_fabric.store import Store

if TYPE_CHECKING:
    from temporal_fabric.store import Objects


@pytest.fixture
def record(objects: Objects) -> RequestRecord:
    """An empty record, in each kind of store."""
    return RequestRecord(Store(objects), "lab", "run")


async def test_same_digest_joins_other_digest_conflicts(record: RequestRecord) -> None:
    """The record belongs to one body."""
    await record.open("sha256:a", {"n": 1})
    await record.open("sha256:a", {"n": 1})

    with pytest.raises(StoreConflict, match="another request"):
        await record.open("sha256:b", {"n": 2})

    assert await record.body("sha256:a") == {"n": 1}


async def test_epochs_rise_and_repeats_are_the_same(record: RequestRecord) -> None:
    """A repeated grant finds its epoch, a new one gets the next."""
    first = await record.allocate("run-1", 1, "local@h")
    again = await record.allocate("run-1", 1, "local@h")
    second = await record.allocate("run-2", 1, "local@h")

    assert (first.epoch, again, second.epoch) == (1, first, 2)


async def test_racing_grants_get_different_epochs(record: RequestRecord) -> None:
    """Twenty grants at once get twenty epochs without a gap."""
    found = await asyncio.gather(*(record.allocate(f"run-{n}", 1, "b") for n in range(20)))

    assert sorted(epoch.epoch for epoch in found) == list(range(1, 21))


async def test_an_old_epoch_is_refused(record: RequestRecord) -> None:
    """Only the newest epoch of the run that got it may act."""
    await record.allocate("run-1", 1, "b")
    await record.require_newest(1, "run-1")
    with pytest.raises(StaleEpoch):
        await record.require_newest(1, "a-reset-run")
    await record.allocate("run-1", 2, "b")

    with pytest.raises(StaleEpoch):
        await record.require_newest(1, "run-1")


async def test_ended_epochs_are_known(record: RequestRecord) -> None:
    """Until its end is proven, an epoch counts as possibly running."""
    await record.allocate("run-1", 1, "b")
    await record.allocate("run-1", 2, "b")
    await record.mark_ended(1, "ended")
    await record.mark_ended(1, "ended twice")

    assert await record.ended() == {1}


async def test_the_first_outcome_stands(record: RequestRecord) -> None:
    """A run ends once."""
    await record.record_outcome("run-1", {"state": "SUCCEEDED", "ended_at": "2026-01-01"})
    await record.record_outcome("run-1", {"state": "FAILED", "ended_at": "2026-01-02"})

    assert await record.last_outcome() == (
        "run-1",
        {"state": "SUCCEEDED", "ended_at": "2026-01-01"},
    )


async def test_a_damaged_record_is_an_error(record: RequestRecord, objects: Objects) -> None:
    """A damaged record is reported, never read as absent."""
    await record.open("sha256:a", {})
    objects.replace("requests/lab/run/request.json", b"{")

    with pytest.raises(StoreError, match="damaged"):
        await record.digest()
