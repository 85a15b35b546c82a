"""Store and request record: exclusive, durable, fenced."""

from __future__ import annotations

import asyncio
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from temporal_fabric.errors import StaleEpoch, StoreConflict, StoreError
from temporal_fabric.record import RequestRecord
from temporal_fabric.store import FileStore, open_store

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    """An empty store."""
    return FileStore(tmp_path)


@pytest.fixture
def record(store: FileStore) -> RequestRecord:
    """An empty record."""
    return RequestRecord(store, "lab", "run")


async def test_create_is_exclusive(store: FileStore) -> None:
    """Of many writers of one name exactly one wins, and its content stands."""
    wins = await asyncio.gather(*(store.create("a/b", bytes([n])) for n in range(20)))

    assert wins.count(True) == 1
    assert await store.read("a/b") == bytes([wins.index(True)])
    assert await store.names("a") == ["b"]


async def test_keys_stay_inside(store: FileStore) -> None:
    """A key cannot leave the store."""
    for key in ("../x", "/etc/x", "a/../../x"):
        with pytest.raises(StoreError):
            await store.create(key, b"")


async def test_a_link_is_not_stored(store: FileStore, tmp_path: Path) -> None:
    """A link a payload planted is refused instead of followed."""
    (tmp_path / "secret").write_text("s")
    (tmp_path / "link").symlink_to(tmp_path / "secret")

    with pytest.raises(StoreError):
        await store.put_file("kept", tmp_path / "link")

    assert await store.read("kept") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
async def test_a_full_store_says_so_and_keeps_nothing_half(tmp_path: Path) -> None:
    """ENOSPC is a StoreError, and no partial object is left behind."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], check=True)
    try:
        full = FileStore(disk)
        with pytest.raises(StoreError, match="free space"):
            await full.replace("big", b"x" * 1024 * 1024)

        assert await full.names("") == []
        assert await full.create("small", b"x")
    finally:
        subprocess.run(["umount", disk], check=True)


def test_other_schemes_are_refused() -> None:
    """A scheme without a store is an error that names the setting."""
    with pytest.raises(StoreError, match="store"):
        open_store("ftp://host/x")


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


async def test_unended_epochs_are_known(record: RequestRecord) -> None:
    """Until its end is proven, an epoch counts as possibly running."""
    await record.allocate("run-1", 1, "b")
    await record.allocate("run-1", 2, "b")
    await record.mark_ended(1, "ended")
    await record.mark_ended(1, "ended twice")

    assert [epoch.epoch for epoch in await record.unended()] == [2]


async def test_the_first_outcome_stands(record: RequestRecord) -> None:
    """A run ends once."""
    await record.record_outcome("run-1", {"state": "SUCCEEDED", "ended_at": "2026-01-01"})
    await record.record_outcome("run-1", {"state": "FAILED", "ended_at": "2026-01-02"})

    assert await record.last_outcome() == (
        "run-1",
        {"state": "SUCCEEDED", "ended_at": "2026-01-01"},
    )


async def test_a_damaged_record_is_an_error(record: RequestRecord, tmp_path: Path) -> None:
    """A damaged record is reported, never read as absent."""
    await record.open("sha256:a", {})
    (tmp_path / "requests/lab/run/request.json").write_bytes(b"{")

    with pytest.raises(StoreError, match="damaged"):
        await record.digest()
