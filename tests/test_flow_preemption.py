"""A flow leaves its place to more urgent work, and goes on later to the same bits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from temporal_fabric import Capsule, ExperimentFailed, Fabric
from temporal_fabric.capsule.queries import query
from temporal_fabric.testing.environment import FabricEnvironment
from tests.bodies import shell
from tests.flow_bodies import InProcess, endless, flow, reaches

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.asyncio(loop_scope="module")

SPEC = endless(6_000)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def environment(jax_cache: Path) -> AsyncIterator[FabricEnvironment]:
    """A fabric with one place."""
    env = {"JAX_COMPILATION_CACHE_DIR": str(jax_cache)}
    one = '[backends.local]\nkind = "local"\nslots = 1\n'
    async with FabricEnvironment.fresh(env, config=one) as found:
        yield found


async def test_preempted_and_gone_on(fabric: Fabric, in_process: InProcess) -> None:
    """The urgent pass, equals wait; then the flow goes on, with every row and event once."""
    expected = await asyncio.to_thread(in_process.run, SPEC)
    handle = await fabric.submit(flow(SPEC, retry={"max_attempts": 1}))
    await reaches(handle, 100)
    equal = await fabric.submit(shell("true"))
    async with asyncio.timeout(60):
        while (await equal.status(detail=False)).reason != "WAITING_FOR_CAPACITY":
            await asyncio.sleep(0.1)
    made = await reaches(handle, await reaches(handle, 100) + 300)

    urgent = [await fabric.submit(shell("true", priority=9)) for _ in range(2)]
    passed = [await asyncio.wait_for(one.result(), 60) for one in urgent]
    between = await handle.status()
    with pytest.raises(ExperimentFailed) as caught:
        await handle.result()

    assert [one.state for one in passed] == ["SUCCEEDED", "SUCCEEDED"]
    assert between.state in {"RETRYING", "QUEUED", "PREPARING", "RUNNING"}
    assert (await equal.result()).state == "SUCCEEDED"
    first, last = caught.value.result["attempts"]
    assert (first["reason"], last["reason"]) == ("PREEMPTED", "CERT_FAIL")
    assert first["message"] == (
        "left its place to a more urgent experiment; its last good checkpoint is kept"
    )
    assert made <= first["flow"]["iteration"] < last["flow"]["iteration"] == 6_000
    assert last["flow"]["sha256"] == expected["sha256"]
    capsule = Capsule.open(caught.value.result["capsule"])
    assert capsule.verify() == []
    rows = query([capsule], "SELECT iter, epoch FROM telemetry ORDER BY seq")[1]
    assert [row[0] for row in rows] == list(range(10, 6_001, 10))
    assert [row[1] for row in rows] == sorted(row[1] for row in rows)
    assert {row[1] for row in rows} == {first["epoch"], last["epoch"]}
    told = query([capsule], "SELECT count(*) FROM events WHERE event = 'RUN_FINISHED'")[1]
    assert told == [[1]]


async def test_nobody_leaves_a_drained_backend(fabric: Fabric) -> None:
    """Where the place would not be given to the urgent one, the flow stays to its end."""
    handle = await fabric.submit(flow(endless(2_000)))
    await reaches(handle, 100)
    await fabric.drain("local")
    urgent = await fabric.submit(shell("true", priority=9))

    with pytest.raises(ExperimentFailed) as caught:
        await handle.result()
    await fabric.undrain("local")

    assert [one["reason"] for one in caught.value.result["attempts"]] == ["CERT_FAIL"]
    assert (await urgent.result()).state == "SUCCEEDED"
