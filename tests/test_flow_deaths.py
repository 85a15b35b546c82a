"""Deaths in the middle of a flow: the final state has the same bits as without any."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from temporal_fabric import Capsule, ExperimentCanceled, ExperimentFailed, Fabric
from temporal_fabric.capsule.queries import query
from temporal_fabric.connection import connect
from temporal_fabric.devserver import spawn
from temporal_fabric.failpoints import FailPoint
from temporal_fabric.testing.environment import FabricEnvironment
from temporal_fabric.testing.faults import FailPoints
from tests.flow_bodies import SMALL, InProcess, endless, flow, reaches

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from temporal_fabric.handle import ExperimentHandle

pytestmark = pytest.mark.asyncio(loop_scope="module")

SPEC = endless(2_000)
CAMPAIGN = "FABRIC_CAMPAIGN" in os.environ
RANDOM = 200 if CAMPAIGN else 2
SEED = int(os.environ.get("FABRIC_CAMPAIGN_SEED", "20261121"))


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> FailPoints:
    """The fail points of this module's worker."""
    return FailPoints(tmp_path_factory.mktemp("points"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def environment(jax_cache: Path, points: FailPoints) -> AsyncIterator[FabricEnvironment]:
    """A fabric whose worker is killed and started again."""
    env = {"JAX_COMPILATION_CACHE_DIR": str(jax_cache), "FABRIC_SLOTS": "8"} | points.env
    async with FabricEnvironment.fresh(env) as found:
        yield found


@pytest.fixture(scope="module")
def expected(in_process: InProcess) -> dict[str, Any]:
    """What comes out where nothing dies."""
    return in_process.run(SPEC)


def _jax_of(worker: int) -> int | None:
    """Return the pid of a worker's process of JAX, None where there is none just now."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            continue
        if b"temporal_fabric.flows.warm" in command and parent == worker:
            return int(folder.name)
    return None


def _is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def _kill(env: FabricEnvironment, victim: str) -> None:
    """Kill the worker, and start another; or kill its process of JAX."""
    assert env.worker is not None
    if victim == "worker":
        await asyncio.to_thread(env.kill_worker)
        await asyncio.to_thread(env.start_worker)
    elif (pid := _jax_of(env.worker.pid)) is not None:
        os.kill(pid, signal.SIGKILL)


async def _same(handle: ExperimentHandle, expected: dict[str, Any]) -> None:
    """Assert that a flow ends in the expected bits, each of its rows there once."""
    with pytest.raises(ExperimentFailed) as caught:
        await handle.result()
    outcome = caught.value.result["attempts"][-1]["flow"]
    assert (outcome["sha256"], caught.value.reason) == (expected["sha256"], expected["reason"])
    assert len(caught.value.result["attempts"]) == 1
    capsule = Capsule.open(caught.value.result["capsule"])
    assert capsule.verify() == []
    rows = query([capsule], "SELECT iter FROM telemetry ORDER BY seq")[1]
    assert [row[0] for row in rows] == list(range(10, 2_001, 10))
    told = query([capsule], "SELECT count(*) FROM events WHERE event = 'RUN_FINISHED'")[1]
    assert told == [[1]]


@pytest.mark.parametrize(
    "cell",
    [
        (point, victim)
        for point in (FailPoint.FLOW_ASKED, FailPoint.FLOW_ANSWERED)
        for victim in ("worker", "jax")
    ],
    ids="-".join,
)
async def test_a_death_around_a_step(
    environment: FabricEnvironment,
    fabric: Fabric,
    points: FailPoints,
    expected: dict[str, Any],
    cell: tuple[FailPoint, str],
) -> None:
    """Killed before a step is made, or when it is durable and nobody knows: the same bits."""
    point, victim = cell
    handle = await fabric.submit(flow(SPEC))
    await reaches(handle, 100)

    points.arm(point)
    await points.reached(point)
    if victim == "jax":
        await _kill(environment, victim)
        points.let_go(point)
    else:
        await _kill(environment, victim)

    await _same(handle, expected)


async def test_deaths_at_random_instants(
    environment: FabricEnvironment, fabric: Fabric, expected: dict[str, Any]
) -> None:
    """Workers and processes of JAX die whenever: the same bits, nothing twice, one attempt."""
    chance = random.Random(SEED)
    for number in range(RANDOM):
        handle = await fabric.submit(flow(SPEC))
        await asyncio.sleep(chance.uniform(0.0, 3.0))
        await _kill(environment, ("worker", "jax")[number % 2])
        await _same(handle, expected)


async def test_flows_beside_each_other(
    environment: FabricEnvironment,
    fabric: Fabric,
    in_process: InProcess,
    expected: dict[str, Any],
) -> None:
    """Many at once in one process that dies, for one of them and by itself: each its own bits."""
    other = SPEC | {"terms": [SPEC["terms"][0], SPEC["terms"][1] | {"weight": 0.02}]}
    its = await asyncio.to_thread(in_process.run, other)
    wanted = [expected, its] * 3
    handles = [await fabric.submit(flow(spec)) for spec in [SPEC, other] * 3]
    cancelled = await fabric.submit(flow(endless(1_000_000), limits={"grace_s": 0.1}))
    await reaches(cancelled, 100)

    await cancelled.cancel()
    await _kill(environment, "jax")

    assert its["sha256"] != expected["sha256"]
    for handle, one in zip(handles, wanted, strict=True):
        await _same(handle, one)
    with pytest.raises(ExperimentCanceled):
        await cancelled.result()


async def test_a_step_that_kills_jax_ends_its_run_alone(
    fabric: Fabric, expected: dict[str, Any]
) -> None:
    """A process that dies of the same step again and again is no endless loop, for nobody."""
    operators = {"blur": {"type": "own", "entry_point": "tests.flow_bodies:die"}}
    beside = await fabric.submit(flow(SPEC))
    handle = await fabric.submit(flow(SMALL | {"operators": operators}))

    with pytest.raises(ExperimentFailed) as caught:
        await handle.result()

    assert caught.value.reason == "INTERNAL"
    assert "died 3 times of the same step" in str(caught.value)
    await _same(beside, expected)


async def test_the_process_of_jax_ends_with_its_worker(
    environment: FabricEnvironment, fabric: Fabric
) -> None:
    """A killed worker leaves no process behind."""
    handle = await fabric.submit(flow(endless(1_000_000), limits={"grace_s": 0.1}))
    await reaches(handle, 100)
    assert environment.worker is not None
    pid = _jax_of(environment.worker.pid)
    assert pid is not None

    await asyncio.to_thread(environment.kill_worker)

    async with asyncio.timeout(10):
        while _is_there(pid):
            await asyncio.sleep(0.05)
    await asyncio.to_thread(environment.start_worker)
    await handle.cancel()


async def test_a_long_run_goes_on_in_a_new_history(
    monkeypatch: pytest.MonkeyPatch, jax_cache: Path, expected: dict[str, Any]
) -> None:
    """When its history grows long a flow continues as new, and comes to the same bits."""
    soon = "limit.historyCount.suggestContinueAsNew"
    monkeypatch.setitem(spawn.DYNAMIC_CONFIG, soon, "60")
    env = {"JAX_COMPILATION_CACHE_DIR": str(jax_cache)}
    async with FabricEnvironment.fresh(env) as found:
        fabric = Fabric(await connect(found.settings, address=found.address), found.settings)
        handle = await fabric.submit(flow(SPEC))
        await reaches(handle, 100)
        first = (await handle.status(detail=False)).flow
        described = fabric.client.get_workflow_handle(first)
        await _same(handle, expected)
        runs = [run async for run in fabric.client.list_workflows(f"WorkflowId = '{described.id}'")]

    assert len(runs) > 1
