"""Worker, server and launcher die in the middle; the evidence is kept by another process."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from temporal_fabric import Capsule, ExperimentFailed, Fabric
from temporal_fabric.connection import connect
from temporal_fabric.launcher import LauncherClient
from tests.bodies import assert_ran_once, reporting, shell

if TYPE_CHECKING:
    from temporal_fabric.testing.environment import FabricEnvironment
    from temporal_fabric.testing.evidence import EvidenceLedger


async def _started(ledger: EvidenceLedger, request_id: str) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while not (rows := ledger.lines(id=request_id, event="start")):
            await asyncio.sleep(0.05)
    return rows[0]


async def test_worker_death_changes_nothing(
    running: tuple[FabricEnvironment, Fabric], ledger: EvidenceLedger
) -> None:
    """A SIGKILLed worker is replaced and the payload is adopted: one start, one pid."""
    env, fabric = running
    body = reporting(ledger, seconds=14)
    handle = await fabric.submit(body)
    await _started(ledger, body["id"])

    env.kill_worker()
    env.start_worker()
    result = await handle.result()

    assert_ran_once(ledger, body["id"])
    assert result.epoch == 1
    assert Capsule.open(result.capsule).verify() == []


async def test_payload_that_ends_without_a_worker_is_collected(
    running: tuple[FabricEnvironment, Fabric], ledger: EvidenceLedger
) -> None:
    """A payload that ends while no worker runs keeps its exit code and outputs."""
    env, fabric = running
    body = reporting(ledger, seconds=1)
    handle = await fabric.submit(body)
    await _started(ledger, body["id"])

    env.kill_worker()
    await asyncio.sleep(2)
    env.start_worker()
    result = await handle.result()

    assert_ran_once(ledger, body["id"])
    assert result.attempts[0].exit_code == 0


async def test_server_death_changes_nothing(
    running: tuple[FabricEnvironment, Fabric], ledger: EvidenceLedger
) -> None:
    """A SIGKILLed server comes back on its file and the run goes on."""
    env, fabric = running
    body = reporting(ledger, seconds=4)
    handle = await fabric.submit(body)
    await _started(ledger, body["id"])

    assert env.server is not None
    env.server.kill()
    await asyncio.sleep(0.5)
    env.start_server()
    result = await handle.result()

    assert_ran_once(ledger, body["id"])
    assert result.state == "SUCCEEDED"


async def test_sigterm_detaches_and_leaves_with_zero(
    running: tuple[FabricEnvironment, Fabric], ledger: EvidenceLedger
) -> None:
    """A worker that is told to stop leaves the payload running and exits 0."""
    env, fabric = running
    body = reporting(ledger, seconds=5)
    handle = await fabric.submit(body)
    start = await _started(ledger, body["id"])

    code = env.stop_worker()
    os.kill(start["pid"], 0)
    env.start_worker()
    await handle.result()

    assert code == 0
    assert_ran_once(ledger, body["id"])


async def test_launcher_death_is_lost_and_never_rerun(
    running: tuple[FabricEnvironment, Fabric], ledger: EvidenceLedger
) -> None:
    """Nobody knows what a lost payload did: FAILED(LOST), and no second start."""
    env, fabric = running
    body = reporting(ledger, seconds=60)
    handle = await fabric.submit(body)
    start = await _started(ledger, body["id"])

    launcher = await LauncherClient.connect(env.settings.launcher, start=False)
    os.kill(launcher.launcher_pid, signal.SIGKILL)
    await launcher.aclose()
    with pytest.raises(ExperimentFailed) as caught:
        await handle.result()

    assert caught.value.reason == "LOST"
    assert len(ledger.lines(id=body["id"], event="start")) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(start["pid"], 0)


async def test_lost_is_run_again_where_the_request_allows_it(
    running: tuple[FabricEnvironment, Fabric], ledger: EvidenceLedger
) -> None:
    """With LOST in retry.on a lost attempt is followed by another under a new epoch."""
    env, fabric = running
    body = reporting(ledger, seconds=3)
    body["retry"] = {"on": ["LOST"], "initial_interval_s": 0.1}
    handle = await fabric.submit(body)
    await _started(ledger, body["id"])

    launcher = await LauncherClient.connect(env.settings.launcher, start=False)
    os.kill(launcher.launcher_pid, signal.SIGKILL)
    await launcher.aclose()
    result = await handle.result()

    assert [attempt.reason for attempt in result.attempts] == ["LOST", ""]
    assert [row["epoch"] for row in ledger.lines(id=body["id"], event="start")] == ["1", "2"]


async def test_a_second_worker_of_the_host_is_refused(own_environment: FabricEnvironment) -> None:
    """One worker at a time serves a host; the message names the one that does."""
    env = own_environment
    worker = env.start_worker()

    done = await asyncio.to_thread(env.cli, "worker", "--address", env.address)

    assert done.returncode == 75
    assert f'"pid": {worker.pid}' in done.stderr


async def test_terminated_while_no_worker_ran(
    running: tuple[FabricEnvironment, Fabric], ledger: EvidenceLedger
) -> None:
    """A worker that starts kills and seals what was terminated in its absence."""
    env, fabric = running
    body = reporting(ledger, seconds=60)
    handle = await fabric.submit(body)
    start = await _started(ledger, body["id"])

    env.kill_worker()
    await handle.workflow.terminate("by hand")
    os.kill(start["pid"], 0)
    env.start_worker()
    async with asyncio.timeout(20):
        while "record" not in (status := await handle.status()).sources:
            await asyncio.sleep(0.2)

    assert (status.state, status.reason) == ("FAILED", "LOST")
    assert Capsule.open(status.capsule).verify() == []
    with pytest.raises(ProcessLookupError):
        os.kill(start["pid"], 0)


async def test_a_worker_that_slept_past_its_heartbeat_kills_nothing(
    running: tuple[FabricEnvironment, Fabric], ledger: EvidenceLedger
) -> None:
    """Stopped longer than the heartbeat timeout and woken again: still one start, one pid."""
    env, fabric = running
    worker = env.worker
    assert worker is not None
    body = reporting(ledger, seconds=18)
    handle = await fabric.submit(body)
    await _started(ledger, body["id"])

    worker.send_signal(signal.SIGSTOP)
    await asyncio.sleep(13)
    worker.send_signal(signal.SIGCONT)
    result = await handle.result()

    assert_ran_once(ledger, body["id"])
    assert (result.state, result.epoch) == ("SUCCEEDED", 1)


async def test_a_worker_whose_server_is_gone_still_leaves_with_zero(
    own_environment: FabricEnvironment,
) -> None:
    """SIGTERM after the server's death is a clean end, not an abort of the interpreter."""
    env = own_environment
    env.start_worker()
    assert env.server is not None
    env.server.kill()

    code = await asyncio.to_thread(env.stop_worker)

    assert code == 0


async def test_a_worker_stops_in_time_while_many_wait(own_environment: FabricEnvironment) -> None:
    """Experiments that wait for a place keep no worker from leaving with 0."""
    env = own_environment
    env.start_worker(FABRIC_SLOTS="1")
    fabric = Fabric(await connect(env.settings, address=env.address), env.settings)
    first = await fabric.submit(shell("sleep 60"))
    async with asyncio.timeout(30):
        while (await first.status()).state != "RUNNING":
            await asyncio.sleep(0.1)
    for _ in range(5):
        await fabric.submit(shell("true"))
    await asyncio.sleep(1)

    code = await asyncio.to_thread(env.stop_worker)

    assert code == 0
