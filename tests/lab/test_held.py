"""Where nobody can know whether a device moved: a person is asked, and nothing is repeated."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from temporal_fabric import ExperimentFailed
from temporal_fabric.failpoints import FailPoint
from tests.lab.requests import MOVES, body, held

if TYPE_CHECKING:
    from temporal_fabric import Fabric
    from temporal_fabric.testing.environment import FabricEnvironment
    from temporal_fabric.testing.faults import FailPoints
    from tests.lab.conftest import Device

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    ("point", "answer"), [(FailPoint.LAB_SENT, "done"), (FailPoint.LAB_INTENDED, "not-done")]
)
async def test_a_command_that_may_have_been_sent_is_settled_by_a_person(
    point: FailPoint,
    answer: str,
    lab: tuple[FabricEnvironment, Fabric],
    device: Device,
    points: FailPoints,
) -> None:
    """Killed before the UUID is durable: HELD, nothing moves, and the answer leads on."""
    env, fabric = lab
    with device.watched() as moved:
        before = len(device.moved())
        handle = await fabric.submit(body(f"held-{answer}"))
        async with asyncio.timeout(30):
            while len(device.moved()) < before + 4:
                await asyncio.sleep(0.02)
        points.arm(point)
        await points.reached(point)
        env.kill_worker()
        env.start_worker()
        question = await held(handle)
        stood = device.moved()
        shown = env.cli("status", handle.id).stdout
        refused = env.cli("backends").stdout
        await asyncio.sleep(1)
        assert device.moved() == stood, "nothing moves while a person is asked"
        answered = env.cli("resolve", handle.id, "--as", answer, "--by", "ada")
        result = await handle.result()

    assert "performed on plate-1?" in question
    assert question in " ".join(shown.split()), shown
    assert "waits for a person's answer" in refused
    assert answered.returncode == 0, answered.stderr
    assert (result.state, result.epoch) == ("SUCCEEDED", 2)
    assert Counter(moved) == MOVES
    logs = env.cli("logs", handle.id).stdout
    assert "says ada" in logs


async def test_a_device_that_was_restarted_is_not_asked_to_move_again(
    lab: tuple[FabricEnvironment, Fabric], device: Device, points: FailPoints
) -> None:
    """A device that has forgotten what it performed is no proof: HELD, until somebody gives up."""
    env, fabric = lab
    points.arm(FailPoint.LAB_RECORDED)
    handle = await fabric.submit(body("restarted"))
    await points.reached(FailPoint.LAB_RECORDED)
    device.kill()
    device.start()
    points.let_go(FailPoint.LAB_RECORDED)
    question = await held(handle)
    stood = device.moved()
    answered = env.cli("resolve", handle.id, "--as", "abort", "--by", "ada")
    with pytest.raises(ExperimentFailed) as caught:
        await handle.result()

    assert "performed" in question
    assert answered.returncode == 0, answered.stderr
    assert caught.value.reason == "LOST"
    assert device.moved() == stood
    again = await fabric.submit(body("after"))
    assert (await again.result()).state == "SUCCEEDED", "the device is free for others"
