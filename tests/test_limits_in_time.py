"""Deadlines, queue time-outs, priorities and their reasons, and retries that ask for more."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from temporal_fabric import Capsule, ExperimentFailed, Fabric, RequestRejected
from temporal_fabric.connection import connect
from tests.bodies import shell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from temporal_fabric.handle import ExperimentHandle
    from temporal_fabric.testing.environment import FabricEnvironment


async def _until(handle: ExperimentHandle, state: str) -> None:
    async with asyncio.timeout(40):
        while (await handle.status()).state != state:
            await asyncio.sleep(0.1)


@pytest_asyncio.fixture
async def narrow(own_environment: FabricEnvironment) -> Fabric:
    """A fabric whose one backend runs one attempt at a time."""
    own_environment.start_worker(FABRIC_SLOTS="1")
    client = await connect(own_environment.settings, address=own_environment.address)
    return Fabric(client, own_environment.settings)


@pytest_asyncio.fixture
async def busy(narrow: Fabric) -> AsyncIterator[ExperimentHandle]:
    """An experiment that holds the only place."""
    handle = await narrow.submit(shell("sleep 120", limits={"grace_s": 1}))
    await _until(handle, "RUNNING")
    yield handle
    await handle.cancel()


async def test_a_deadline_ends_a_run_also_while_it_is_paused(
    narrow: Fabric, tmp_path: Path
) -> None:
    """The payload sees its deadline; it passes although the payload stands still."""
    seen = tmp_path / "seen"
    script = f"echo $FABRIC_DEADLINE > {seen}; sleep 120"
    handle = await narrow.submit(shell(script, deadline=8, limits={"grace_s": 1}))
    await _until(handle, "RUNNING")
    await handle.pause()

    with pytest.raises(ExperimentFailed, match="the deadline passed") as caught:
        await asyncio.wait_for(handle.result(), 60)

    deadline = datetime.fromisoformat(seen.read_text().strip())
    assert caught.value.reason == "TIMEOUT"
    assert deadline < datetime.now(UTC)
    assert Capsule.open(caught.value.result["capsule"]).verify() == []
    assert (await narrow.submit(shell("true"))).id  # the place is free again


async def test_a_deadline_passes_in_line(narrow: Fabric, busy: ExperimentHandle) -> None:
    """What is not placed in time fails with TIMEOUT, its capsule says so, and it never runs."""
    handle = await narrow.submit(shell("true", deadline=3))

    with pytest.raises(ExperimentFailed, match="not placed by") as caught:
        await asyncio.wait_for(handle.result(), 60)

    capsule = Capsule.open(caught.value.result["capsule"])
    assert (caught.value.reason, caught.value.result["attempts"]) == ("TIMEOUT", [])
    assert (capsule.result["reason"], capsule.result["request_id"]) == ("TIMEOUT", handle.id)
    assert (await busy.status()).state == "RUNNING"


async def test_a_queue_timeout_counts_waiting_only(narrow: Fabric, busy: ExperimentHandle) -> None:
    """It is NO_BACKEND after the time in line, and a pause does not count."""
    handle = await narrow.submit(shell("true", queue_timeout=5))
    await asyncio.sleep(1)
    await handle.pause()
    await asyncio.sleep(6)
    stands = await handle.status()
    await handle.resume()

    with pytest.raises(ExperimentFailed, match="queue_timeout") as caught:
        await asyncio.wait_for(handle.result(), 60)

    assert stands.state == "PAUSED"
    assert caught.value.reason == "NO_BACKEND"
    assert busy.id != handle.id


async def test_a_changed_priority_changes_the_order(
    narrow: Fabric, own_environment: FabricEnvironment, busy: ExperimentHandle, tmp_path: Path
) -> None:
    """The last in line comes first once it is urgent; nonsense and the ended are refused."""
    log = tmp_path / "log"
    handles = [await narrow.submit(shell(f"echo {name} >> {log}")) for name in "abc"]
    await asyncio.sleep(1)
    at = ("--address", own_environment.address)

    done = await asyncio.to_thread(own_environment.cli, "reprioritise", handles[2].id, "9", *at)
    with pytest.raises(RequestRejected) as nonsense:
        await handles[0].reprioritise(11)
    await asyncio.sleep(2)
    await busy.cancel()
    await asyncio.gather(*(handle.result() for handle in handles))
    with pytest.raises(RequestRejected, match="it has ended"):
        await handles[0].reprioritise(3)

    assert (done.returncode, done.stdout.split()[1]) == (0, "QUEUED")
    assert nonsense.value.code == "E_RANGE"
    assert log.read_text().split() == ["c", "a", "b"]


async def test_a_retry_asks_for_more(narrow: Fabric) -> None:
    """After a TIMEOUT the next attempt gets more time, and everything says how much."""
    rule = {"max_attempts": 2, "initial_interval_s": 0.1, "on": {"TIMEOUT": {"wall_s": "x10"}}}
    body = shell("sleep 5", retry=rule, limits={"wall_s": 2, "grace_s": 0.5})
    handle = await narrow.submit(body)

    result = await handle.result()

    status = await handle.status()
    assert [attempt.reason for attempt in result.attempts] == ["TIMEOUT", ""]
    assert [attempt.changes for attempt in result.attempts] == [[], ["wall_s 2 -> 20"]]
    assert status.attempts[1]["changes"] == ["wall_s 2 -> 20"]


async def test_a_retry_that_fits_nowhere_fails_with_the_first_reason(narrow: Fabric) -> None:
    """It is the payload's own failure, and the message says why there was no other attempt."""
    rule = {"max_attempts": 3, "initial_interval_s": 0.1, "on": {"EXIT_CODE": {"memory": "x100"}}}
    resources = [{"type": "memory", "size_gb": 1}]
    needs = {"type": "computation", "resources": resources}
    handle = await narrow.submit(shell("exit 7", retry=rule, requirements=needs))

    with pytest.raises(ExperimentFailed) as caught:
        await handle.result()

    assert (caught.value.reason, caught.value.exit_code) == ("EXIT_CODE", 7)
    assert "exited with code 7; not tried again with memory 1 -> 100 GB" in str(caught.value)
    assert len(caught.value.result["attempts"]) == 1


async def test_it_says_why_it_waits(
    narrow: Fabric, own_environment: FabricEnvironment, busy: ExperimentHandle
) -> None:
    """In line, paused and running: the reason, the backends' verdicts and the change to make."""
    first = await narrow.submit(shell("true"))
    second = await narrow.submit(shell("true"))
    async with asyncio.timeout(30):
        while (waits := await second.explain()).ahead != 1:
            await asyncio.sleep(0.2)
    at = ("--address", own_environment.address)
    said = await asyncio.to_thread(own_environment.cli, "explain", second.id, *at)
    await first.pause()
    paused = await first.explain()
    runs = await busy.explain()

    assert (waits.state, waits.reason) == ("QUEUED", "WAITING_FOR_CAPACITY")
    assert "(1 of 1 taken); before it wait 1" in waits.why
    assert waits.change == f"temporal-fabric reprioritise {second.id} 10"
    assert [(verdict.ok, verdict.used) for verdict in waits.verdicts] == [(True, 1)]
    assert f"would move it now: {waits.change}" in said.stdout
    assert (paused.reason, paused.change) == ("PAUSED", f"temporal-fabric resume {first.id}")
    assert (runs.state, runs.change) == ("RUNNING", "")
