"""A worker that stands still past its heartbeat, and goes on once another host has taken over."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest_asyncio

from temporal_fabric.capsule.finding import find_capsules
from temporal_fabric.failpoints import FailPoint
from tests.site import GATED, Site, held, site, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from temporal_fabric import Capsule
    from temporal_fabric.handle import ExperimentHandle
    from temporal_fabric.outcomes import ExperimentResult


@pytest_asyncio.fixture
async def found() -> AsyncIterator[Site]:
    """A site with one host."""
    async with site() as made:
        await made.host("one")
        yield made


async def _ended_on_two(found: Site, handle: ExperimentHandle) -> ExperimentResult:
    """Let the first host go on and do what it must not, then let the second attempt end."""
    await found.hosts["one"].go_on()
    await found.fabric.drain("local@one", reason="it answers again")
    await asyncio.sleep(2)
    found.open_gate(handle.id, 2)
    return await asyncio.wait_for(handle.result(), 60)


def _committed(found: Site, handle: ExperimentHandle) -> list[Capsule]:
    return find_capsules(found.env.settings.store, handle.id)


async def test_stopped_before_it_started_anything(found: Site) -> None:
    """Placed elsewhere by itself; the stopped worker finds its start revoked: one start in all."""
    points = found.hosts["one"].points
    points.arm(FailPoint.ATTEMPT_TAKEN)
    handle = await found.fabric.submit(found.body("untouched", GATED))
    await points.reached(FailPoint.ATTEMPT_TAKEN)
    await found.hosts["one"].stop()
    await found.host("two")
    await until(handle, lambda status: (status.state, status.epoch) == ("RUNNING", 2))

    points.let_go(FailPoint.ATTEMPT_TAKEN)
    result = await _ended_on_two(found, handle)

    assert found.ran(handle.id) == [("start", "2"), ("end", "2")]
    assert (result.state, result.epoch, result.backend) == ("SUCCEEDED", 2, "local@two")
    assert [capsule.uri for capsule in _committed(found, handle)] == [result.capsule]


async def test_stopped_while_its_payload_ran(found: Site) -> None:
    """Its payload ends behind its back, a person has said not-done: what it collects is refused."""
    handle = await found.fabric.submit(found.body("overtaken", GATED))
    await until(handle, lambda status: status.state == "RUNNING")
    await found.hosts["one"].stop()
    await found.host("two")
    await held(handle)
    await handle.resolve("not-done", by="ada")
    await until(handle, lambda status: (status.state, status.epoch) == ("RUNNING", 2))

    found.open_gate(handle.id, 1)
    async with asyncio.timeout(30):
        while ("end", "1") not in found.ran(handle.id):
            await asyncio.sleep(0.1)
    result = await _ended_on_two(found, handle)

    assert sorted(found.ran(handle.id)) == [
        *(("end", "1"), ("end", "2")),
        *(("start", "1"), ("start", "2")),
    ]
    assert (result.state, result.epoch, result.backend) == ("SUCCEEDED", 2, "local@two")
    (capsule,) = _committed(found, handle)
    assert capsule.output("out.txt").read_text() == "2"
    assert capsule.verify() == []
