"""A run on a device that stands still: no movement begins, and none is made twice."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.lab.requests import MOVES, body
from tests.site import until

if TYPE_CHECKING:
    from temporal_fabric import Fabric
    from temporal_fabric.testing.environment import FabricEnvironment
    from tests.lab.conftest import Device

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_device_that_cannot_pause_ends_its_command_first(
    lab: tuple[FabricEnvironment, Fabric], device: Device
) -> None:
    """Paused in a step: that one ends, no other begins, also for a new worker; then all go on."""
    env, fabric = lab
    before = len(device.begun())
    request = body("paused") | {"limits": {"wall_s": 60}}
    with device.watched() as moved:
        handle = await fabric.submit(request)
        async with asyncio.timeout(30):
            while len(device.begun()) < before + 2:
                await asyncio.sleep(0.02)
        done = await asyncio.to_thread(env.cli, "pause", handle.id)
        await until(handle, lambda status: status.state == "PAUSED")
        stood = (device.begun(), device.moved())
        env.kill_worker()
        env.start_worker()
        await asyncio.sleep(2)  # it has the chance to do what it must not
        still = (device.begun(), device.moved())
        await handle.resume()
        result = await handle.result()

    assert done.returncode == 0, done.stderr
    assert still == stood
    assert stood[0] == stood[1], "what had begun was ended"
    assert len(stood[0]) < before + sum(MOVES.values())
    assert (result.state, result.epoch) == ("SUCCEEDED", 1)
    assert Counter(moved) == MOVES
    said = re.sub(r"\d\d:\d\d:\d\d ", "", env.cli("logs", handle.id).stdout).splitlines()
    assert [line for line in said if "still" in line or line == "goes on"] == [
        "to stand still",
        "stands still",
        "goes on",
    ]
