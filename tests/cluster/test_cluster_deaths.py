"""Services and database of a cluster are killed while experiments run on it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from temporal_fabric import Capsule, Fabric
from temporal_fabric.connection import connect
from temporal_fabric.errors import ServerUnavailable
from temporal_fabric.testing.cluster import DATABASE
from temporal_fabric.testing.environment import FabricEnvironment
from tests.bodies import assert_ran_once, reporting

if TYPE_CHECKING:
    from temporal_fabric import ExperimentHandle, ExperimentResult
    from temporal_fabric.testing.cluster import Cluster
    from temporal_fabric.testing.evidence import EvidenceLedger

# Alone it takes 20 s. A loaded machine needs more for the set-up alone, which counts for nothing.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(400, func_only=True)]

MANY = 16
AT_ONCE = 4
KILLED = ("history", "matching", "frontend", DATABASE)


async def _result(handle: ExperimentHandle) -> ExperimentResult:
    """Wait through every outage, as a caller that means it does."""
    while True:
        try:
            return await handle.result()
        except ServerUnavailable:
            await asyncio.sleep(0.5)


async def test_every_part_of_the_cluster_may_die(cluster: Cluster, ledger: EvidenceLedger) -> None:
    """History, matching, frontend and database are killed: every experiment ends once."""
    config = f"[backends.local]\nslots = {AT_ONCE}\n"
    async with FabricEnvironment.fresh(config=config, address=cluster.address) as env:
        fabric = Fabric(await connect(env.settings, address=env.address), env.settings)
        bodies = [reporting(ledger, seconds=2) for _ in range(MANY)]
        handles = [await fabric.submit(body) for body in bodies]
        results = asyncio.gather(*(_result(handle) for handle in handles))
        for part in KILLED:
            started = len(ledger.lines(event="start"))
            cluster.kill_part(part)
            await asyncio.sleep(1)
            cluster.start_part(part)
            while len(ledger.lines(event="start")) == started < MANY:
                await asyncio.sleep(0.1)  # something new has to start after each death
                await asyncio.to_thread(cluster.keep_up)
        while not results.done():
            await asyncio.sleep(0.1)
            await asyncio.to_thread(cluster.keep_up)

        ended = await results
        damaged = [result.capsule for result in ended if Capsule.open(result.capsule).verify()]

    assert damaged == []
    assert {result.state for result in ended} == {"SUCCEEDED"}
    for body, result in zip(bodies, ended, strict=True):
        assert_ran_once(ledger, str(body["id"]))
        assert (result.request_id, result.epoch, len(result.attempts)) == (body["id"], 1, 1)
