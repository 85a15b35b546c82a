"""Disks that are full or broken: nothing accepted is lost, nothing is run again for it."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from temporal_fabric import Capsule, Fabric
from temporal_fabric.connection import connect
from temporal_fabric.testing.environment import FabricEnvironment
from temporal_fabric.testing.evidence import EvidenceLedger
from temporal_fabric.testing.failing_disk import FailingDisk
from tests.bodies import REPORTER, python

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator

    from temporal_fabric.handle import ExperimentHandle

_REPORT = REPORTER[-1]
PAYLOAD = f"""
{_REPORT.replace("sys.argv[1]", "'start'")}
import time
print('::fabric:: ' + json.dumps({{'step': 1, 'loss': 1.0}}), flush=True)
open(os.environ['FABRIC_OUTPUT_DIR'] + '/out.txt', 'w').write('done')
time.sleep(float(os.environ['SECONDS']))
"""
_MOST = 40
"""A run makes about this many fsyncs in its worker."""


def _calls() -> list[int]:
    if os.environ.get("FABRIC_CAMPAIGN"):
        return list(range(_MOST))
    chance = random.Random(20261121)
    return sorted(chance.sample(range(_MOST), _MOST // 5))


def _body(ledger: EvidenceLedger, seconds: float) -> dict[str, Any]:
    env = {"EVIDENCE": str(ledger.socket), "SECONDS": str(seconds)}
    body = python(PAYLOAD, env=env, limits={"grace_s": 1})
    body["payload"]["process"]["outputs"] = [{"source_path": "out.txt"}]
    return body


async def _succeeds_once(handle: ExperimentHandle, ledger: EvidenceLedger) -> None:
    async with asyncio.timeout(60):
        result = await handle.result()
    assert len(ledger.lines(id=handle.id, event="start")) == 1
    assert [attempt.reason for attempt in result.attempts] == [""]
    assert Capsule.open(result.capsule).verify() == []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def failing() -> AsyncIterator[tuple[Fabric, FailingDisk, EvidenceLedger]]:
    """A fabric whose worker's disk takes orders."""
    async with FabricEnvironment.fresh(worker=False) as env:
        disk = FailingDisk(env.home / "disk")
        env.start_worker("temporal_fabric.testing.failing_disk", **disk.env)
        ledger = EvidenceLedger(env.home)
        client = await connect(env.settings, address=env.address)
        yield (Fabric(client, env.settings), disk, ledger)
        ledger.close()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("calls", _calls())
async def test_one_failed_fsync_costs_nothing(
    failing: tuple[Fabric, FailingDisk, EvidenceLedger], calls: int
) -> None:
    """EIO at one fsync of the worker: tried again, one start, one capsule that verifies."""
    fabric, disk, ledger = failing
    disk.fail_after(calls)

    handle = await fabric.submit(_body(ledger, seconds=0.2))

    await _succeeds_once(handle, ledger)


@pytest.mark.asyncio(loop_scope="module")
async def test_the_failing_disk_fails(
    failing: tuple[Fabric, FailingDisk, EvidenceLedger],
) -> None:
    """The orders are obeyed: otherwise the test beside it would test nothing."""
    fabric, disk, ledger = failing
    disk.fail_after(5)

    await (await fabric.submit(_body(ledger, seconds=0.2))).result()

    assert disk.failed


@contextmanager
def _small_disk(size: str) -> Generator[Path]:
    if os.geteuid() != 0:
        pytest.skip("a small disk is mounted by root only")
    with tempfile.TemporaryDirectory(prefix="fab") as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True)


def _fill(disk: Path) -> Path:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError:
            return filler
    raise AssertionError("the disk has no end")


@pytest.mark.parametrize("when", ["before it is admitted", "before it is sealed"])
async def test_a_full_store_only_delays(short_folder: Path, when: str) -> None:
    """Without space an experiment waits; it ends as it should once there is some, unrestarted."""
    with _small_disk("4m") as disk:
        home = short_folder / "home"
        home.mkdir()
        env = FabricEnvironment(home, store=disk.as_uri())
        env.start_server()
        ledger = EvidenceLedger(short_folder)
        try:
            env.start_worker()
            fabric = Fabric(await connect(env.settings, address=env.address), env.settings)
            body = _body(ledger, seconds=2)
            if when == "before it is admitted":
                filler = _fill(disk)
                handle = await fabric.submit(body)
            else:
                handle = await fabric.submit(body)
                async with asyncio.timeout(30):
                    while not ledger.lines(id=body["id"], event="start"):
                        await asyncio.sleep(0.05)
                filler = _fill(disk)
            await asyncio.sleep(4)
            await asyncio.to_thread(filler.unlink)
            await _succeeds_once(handle, ledger)
        finally:
            ledger.close()
            await env.close()
