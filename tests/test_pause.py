"""Pause and resume in every state, and through the death of worker and server."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import PauseActivityRequest, UnpauseActivityRequest

from temporal_fabric import (
    ExperimentCanceled,
    Fabric,
    RequestRejected,
)
from temporal_fabric.connection import connect
from temporal_fabric.errors import ExperimentNotFound, ServerUnavailable
from temporal_fabric.names import ACTIVITY_ATTEMPT
from tests.bodies import python, shell

if TYPE_CHECKING:
    from temporal_fabric.handle import ExperimentHandle
    from temporal_fabric.testing.environment import FabricEnvironment

_COUNT = (
    "import os, time\n"
    "for step in range({steps}):\n"
    "    end = time.process_time() + 0.02\n"
    "    while time.process_time() < end: pass\n"
    "    print(os.getpid(), step, flush=True)\n"
)


async def _until(handle: ExperimentHandle, *states: str) -> None:
    async with asyncio.timeout(40):
        while (await handle.status()).state not in states:
            await asyncio.sleep(0.1)


def _ticks(native_id: str) -> int:
    """Return the processor time of ``pid N (start M)`` in clock ticks."""
    stat = Path(f"/proc/{native_id.split()[1]}/stat").read_text().rpartition(")")[2].split()
    return int(stat[11]) + int(stat[12])


def _states(result: Any) -> list[str]:
    return [moment.state for moment in result.timeline]


@pytest_asyncio.fixture
async def narrow(own_environment: FabricEnvironment) -> Fabric:
    """A fabric whose one backend runs one attempt at a time."""
    own_environment.start_worker(FABRIC_SLOTS="1")
    client = await connect(own_environment.settings, address=own_environment.address)
    return Fabric(client, own_environment.settings)


async def test_a_running_payload_stands_still_and_goes_on(narrow: Fabric) -> None:
    """Paused it uses no processor time; resumed it ends under the same pid, in one attempt."""
    handle = await narrow.submit(
        python(_COUNT.format(steps=150), limits={"wall_s": 12, "grace_s": 1})
    )
    await _until(handle, "RUNNING")

    paused = await handle.pause()
    again = await handle.pause()
    before = _ticks(paused.native_id)
    await asyncio.sleep(10)
    after = _ticks(paused.native_id)
    resumed = await handle.resume()
    result = await handle.result()

    assert (paused.state, again.state, resumed.state) == ("PAUSED", "PAUSED", "RUNNING")
    assert before == after
    assert (result.state, len(result.attempts)) == ("SUCCEEDED", 1)
    assert result.attempts[0].paused_s > 9
    assert f"pid {paused.native_id.split()[1]} " in result.attempts[0].native_id
    assert _states(result) == [
        "QUEUED",
        "PREPARING",
        "RUNNING",
        "PAUSED",
        "RUNNING",
        "COLLECTING",
        "SUCCEEDED",
    ]


async def test_a_queued_one_keeps_its_place_and_gets_none(narrow: Fabric, tmp_path: Path) -> None:
    """While it is paused others pass; resumed it comes before those that came after it."""
    gate, log = tmp_path / "gate", tmp_path / "log"
    wait = f"while [ ! -e {gate} ]; do sleep 0.05; done"
    first = await narrow.submit(shell(wait))
    await _until(first, "RUNNING")
    paused = await narrow.submit(shell(f"echo paused >> {log}"))
    await asyncio.sleep(1)
    passing = await narrow.submit(shell(f"echo passing >> {log}; sleep 3"))
    await asyncio.sleep(1)
    later = await narrow.submit(shell(f"echo later >> {log}"))

    stands = await paused.pause()
    gate.touch()
    await first.result()
    await _until(passing, "RUNNING")
    assert (await paused.status()).state == stands.state == "PAUSED"
    assert (await paused.resume()).state == "QUEUED"
    await asyncio.gather(passing.result(), later.result(), paused.result())

    assert log.read_text().split() == ["passing", "paused", "later"]


async def test_between_attempts_the_next_one_waits(narrow: Fabric) -> None:
    """A pause in the back-off lasts until the resume, however short the back-off."""
    retry = {"max_attempts": 2, "initial_interval_s": 4}
    script = "[ $FABRIC_ATTEMPT = 2 ] || exit 3"
    handle = await narrow.submit(shell(script, retry=retry))
    await _until(handle, "RETRYING")

    await handle.pause()
    await asyncio.sleep(6)
    stands = await handle.status()
    await handle.resume()
    result = await handle.result()

    assert (stands.state, len(stands.attempts)) == ("PAUSED", 1)
    assert result.attempts[-1].epoch == 2
    assert _states(result)[4:7] == ["RETRYING", "PAUSED", "RETRYING"]


async def test_what_cannot_be_paused_is_refused(
    narrow: Fabric, own_environment: FabricEnvironment
) -> None:
    """Collecting, ended and unknown experiments say why, in one sentence, from every door."""
    blocked = own_environment.home / "capsules"
    blocked.touch()
    handle = await narrow.submit(shell("true"))
    await _until(handle, "COLLECTING")

    with pytest.raises(RequestRejected) as collecting:
        await handle.pause()
    blocked.unlink()
    await handle.result()
    with pytest.raises(RequestRejected) as ended:
        await handle.pause()
    with pytest.raises(ExperimentNotFound):
        await narrow.get("no-such-one").pause()
    done = own_environment.cli("pause", handle.id, "--address", own_environment.address)

    assert "outputs are being collected" in str(collecting.value)
    assert (ended.value.code, "it has ended" in str(ended.value)) == ("E_CONFLICT", True)
    assert (done.returncode, "it has ended" in done.stderr) == (2, True)


async def test_a_paused_one_is_cancelled_as_always(narrow: Fabric, tmp_path: Path) -> None:
    """The payload hears SIGTERM although it stood still, and nothing of it is left."""
    mark = tmp_path / "heard"
    script = f"trap 'echo heard > {mark}; exit 0' TERM; while :; do sleep 0.05; done"
    handle = await narrow.submit(shell(script))
    await _until(handle, "RUNNING")
    await asyncio.sleep(0.5)
    paused = await handle.pause()

    await handle.cancel()
    with pytest.raises(ExperimentCanceled):
        await asyncio.wait_for(handle.result(), 30)

    assert mark.read_text() == "heard\n"
    with pytest.raises(ProcessLookupError):
        os.kill(int(paused.native_id.split()[1]), 0)


async def test_a_pause_outlives_worker_and_server(
    own_environment: FabricEnvironment, running: tuple[FabricEnvironment, Fabric]
) -> None:
    """Both are killed; the payload stands still all the time, and the same process ends."""
    env, fabric = running
    assert env is own_environment
    handle = await fabric.submit(python(_COUNT.format(steps=150)))
    await _until(handle, "RUNNING")
    paused = await handle.pause()
    before = _ticks(paused.native_id)

    env.kill_worker()
    with pytest.raises(ServerUnavailable, match="no worker took it"):
        await handle.resume()
    assert env.server is not None
    env.server.kill()
    env.start_server()
    env.start_worker()
    await asyncio.sleep(12)  # the attempt is adopted after its heartbeat timeout
    stands = await handle.status()
    after = _ticks(paused.native_id)
    await handle.resume()
    result = await handle.result()

    assert (stands.state, stands.native_id) == ("PAUSED", paused.native_id)
    assert before == after
    assert (result.epoch, result.attempts[0].native_id) == (1, paused.native_id)


async def test_the_command_line_says_what_is_so(
    narrow: Fabric, own_environment: FabricEnvironment
) -> None:
    """`pause` and `resume` print state and next command; JSON has the stable keys."""
    handle = await narrow.submit(shell("sleep 60"))
    await _until(handle, "RUNNING")
    at = ("--address", own_environment.address)

    paused = await asyncio.to_thread(own_environment.cli, "pause", handle.id, *at)
    shown = await asyncio.to_thread(own_environment.cli, "status", handle.id, *at)
    resumed = await asyncio.to_thread(own_environment.cli, "resume", handle.id, "-o", "json", *at)
    await handle.cancel()

    assert paused.stdout == f"default/{handle.id} PAUSED\n"
    assert f"next: temporal-fabric resume {handle.id}" in paused.stderr
    assert "PAUSED" in shown.stdout
    assert '"state": "RUNNING"' in resumed.stdout


async def test_the_engines_own_pause_of_the_activity_detaches(
    running: tuple[FabricEnvironment, Fabric],
) -> None:
    """Paused by Temporal's own button the payload goes on alone; unpaused it is adopted."""
    _, fabric = running
    handle = await fabric.submit(python(_COUNT.format(steps=400)))
    await _until(handle, "RUNNING")
    native_id = (await handle.status()).native_id
    service, namespace = fabric.client.workflow_service, fabric.client.namespace
    which = WorkflowExecution(workflow_id=handle.workflow_id)

    await service.pause_activity(
        PauseActivityRequest(namespace=namespace, execution=which, type=ACTIVITY_ATTEMPT)
    )
    async with asyncio.timeout(30):
        while not any("paused" in text for text in await _pending(handle)):
            await asyncio.sleep(0.2)
    before = _ticks(native_id)
    await asyncio.sleep(1)
    goes_on = _ticks(native_id) > before
    await service.unpause_activity(
        UnpauseActivityRequest(namespace=namespace, execution=which, type=ACTIVITY_ATTEMPT)
    )
    result = await asyncio.wait_for(handle.result(), 60)

    assert goes_on
    assert (result.state, result.epoch, len(result.attempts)) == ("SUCCEEDED", 1, 1)
    assert result.attempts[0].native_id == native_id


async def _pending(handle: ExperimentHandle) -> list[str]:
    described = await handle.workflow.describe()
    pending = described.raw_description.pending_activities
    return ["paused" if activity.paused else "runs" for activity in pending]
