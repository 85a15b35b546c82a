"""The emergency stop: the device stops at once, nothing is undone, and a person looks first."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from temporal_fabric import ExperimentFailed
from tests.lab.requests import MOVES, body, held

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from temporal_fabric import Fabric
    from temporal_fabric.testing.environment import FabricEnvironment
    from tests.lab.conftest import Device

pytestmark = pytest.mark.asyncio(loop_scope="module")

Lab = tuple["FabricEnvironment", "Fabric"]


@pytest.fixture(autouse=True)
async def undrained(lab: Lab) -> AsyncIterator[None]:
    """What a test has halted serves the next one."""
    yield
    lab[0].cli("undrain", "plate-1")


async def _begun(device: Device, count: int) -> None:
    async with asyncio.timeout(30):
        while len(device.begun()) < count:
            await asyncio.sleep(0.02)


async def test_what_moves_stops_and_a_person_says_how_it_goes_on(lab: Lab, device: Device) -> None:
    """Halted in the middle of a step: HELD, nothing undone, nothing new; then it goes on."""
    env, fabric = lab
    before = len(device.begun())
    device.kill()
    device.start(pace_s=20)
    with device.watched() as moved:
        handle = await fabric.submit(body("halted"))
        await _begun(device, before + 1)
        why = ("--reason", "the arm is bent", "--by", "ada")
        done = await asyncio.to_thread(env.cli, "halt", "plate-1", "--yes", *why, "-o", "json")
        stood = (device.begun(), device.moved())
        told = json.loads(done.stdout)
        asked = await held(handle)
        backends = env.cli("backends").stdout
        await asyncio.sleep(1)
        assert (device.begun(), device.moved()) == stood, "nothing moves any more"
        device.kill()
        device.start()
        env.cli("resolve", handle.id, "--as", "not-done")
        env.cli("undrain", "plate-1")
        result = await handle.result()

    assert done.returncode == 0, done.stderr
    assert (told["request_id"], told["epoch"], told["drained"]) == ("halted", 1, True)
    assert told["question"] == asked
    assert "plate-1 was halted in PlateHandler.Pick of step 1 `pick`" in asked
    assert "halted by ada: the arm is bent" in backends
    assert (result.state, result.epoch) == ("SUCCEEDED", 2)
    assert Counter(moved) == MOVES, "the interrupted movement was made again, no other one"
    assert "halted by ada: the arm is bent" in env.cli("logs", handle.id).stdout


async def test_it_works_without_worker_and_server(lab: Lab, device: Device) -> None:
    """On the device's host neither is needed; the worker that comes back finds it HELD."""
    env, fabric = lab
    before = len(device.begun())
    handle = await fabric.submit(body("halted-alone"))
    await _begun(device, before + 3)
    env.kill_worker()
    away = ("--address", "127.0.0.1:1")
    done = await asyncio.to_thread(env.cli, "halt", "plate-1", "--yes", *away)
    stood = (device.begun(), device.moved())
    env.start_worker()
    asked = await held(handle)
    env.cli("resolve", handle.id, "--as", "abort")
    with pytest.raises(ExperimentFailed) as caught:
        await handle.result()

    assert done.returncode == 0, done.stderr
    assert "has stopped" in done.stdout
    assert f"a person is asked: {asked}" in done.stdout
    assert (device.begun(), device.moved()) == stood, "nothing was undone either"
    assert caught.value.reason == "LOST"


async def test_another_host_asks_the_worker(lab: Lab, device: Device, tmp_path: Path) -> None:
    """From a home that does not drive the device its worker stops it, also while it is idle."""
    env, _ = lab
    there = ("--home", str(tmp_path), "--address", env.address)
    with device.watched() as moved:
        done = await asyncio.to_thread(env.cli, "halt", "plate-1", "--yes", *there, "-o", "json")
        unknown = await asyncio.to_thread(env.cli, "halt", "arm", "--yes", *there)
    told = json.loads(done.stdout)

    assert done.returncode == 0, done.stderr
    assert told["backend"].startswith("plate-1@")
    assert told["request_id"] == ""
    assert unknown.returncode == 2
    assert "no such backend" in unknown.stderr
    assert moved == []


async def test_nothing_happens_unless_somebody_says_yes(lab: Lab) -> None:
    """Without an answer nothing is stopped, and nothing drained."""
    env, _ = lab
    done = await asyncio.to_thread(env.cli, "halt", "plate-1")
    assert done.returncode == 130
    assert "Stop the device of plate-1 at once?" in done.stderr
    assert "halted" not in env.cli("backends").stdout


async def test_a_device_that_is_away_has_not_stopped(lab: Lab, device: Device) -> None:
    """Nobody claims that a device has stopped which did not answer; it is drained all the same."""
    env, _ = lab
    device.kill()
    try:
        done = await asyncio.to_thread(env.cli, "halt", "plate-1", "--yes")
        backends = env.cli("backends").stdout
    finally:
        device.start()
    assert done.returncode == 1
    assert "has stopped" not in done.stdout
    assert "use its own emergency stop" in done.stderr
    assert "drained" in backends
