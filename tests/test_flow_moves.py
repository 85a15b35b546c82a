"""A flow goes on at hosts that never had its checkpoint: from the copy of it in the store."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from temporal_fabric import Capsule, ExperimentFailed
from temporal_fabric.capsule.queries import query
from tests.flow_bodies import InProcess, endless, flow, reaches
from tests.site import GATED, site, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

SPEC = endless(12_000)
RULES = {"retry": {"lost_after": 300, "initial_interval_s": 0.1}, "limits": {"grace_s": 1}}


@dataclass
class _Story:
    """A flow that left one host, went on at a second, which died, and ended at a third."""

    result: dict[str, Any]
    left: list[str]
    """What the store holds of its copies afterwards."""

    expected: dict[str, Any]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def story(jax_cache: Path, in_process: InProcess) -> AsyncIterator[_Story]:
    """It leaves its place to urgent work, its host is drained, and the next one is killed."""
    expected = await asyncio.to_thread(in_process.run, SPEC)
    env = {
        "JAX_COMPILATION_CACHE_DIR": str(jax_cache),
        "FABRIC_FLOW_COPY_EVERY_S": "0.1",
        "FABRIC_SLOTS": "1",
    }
    async with site() as found:
        await found.host("one", **env)
        handle = await found.fabric.submit(flow(SPEC, **RULES) | {"id": "moving"})
        await reaches(handle, 100)
        urgent = await found.fabric.submit(found.body("urgent", GATED, priority=9))
        await until(urgent, lambda status: status.state == "RUNNING")
        two = await found.host("two", **env)
        await found.fabric.drain("local@one")
        await until(handle, lambda status: (status.state, status.epoch) == ("RUNNING", 2))
        await reaches(handle, await reaches(handle, 100) + 300)
        copies = found.env.home / "flows" / "default" / "moving"
        async with asyncio.timeout(60):
            while not (copies / "000002.json").exists():
                await asyncio.sleep(0.05)
        await two.die()
        await found.host("three", **env)
        with pytest.raises(ExperimentFailed) as caught:
            await asyncio.wait_for(handle.result(), 180)
        found.open_gate("urgent", 1)
        assert (await urgent.result()).state == "SUCCEEDED"
        left = [path.name for path in copies.rglob("*") if path.is_file()]
        yield _Story(caught.value.result, left, expected)


async def test_the_same_bits(story: _Story) -> None:
    """The final state is that of a run that stayed and never stopped."""
    last = story.result["attempts"][-1]
    assert last["reason"] == story.expected["reason"] == "CERT_FAIL"
    assert last["flow"]["sha256"] == story.expected["sha256"]


async def test_from_host_to_host(story: _Story) -> None:
    """Drained and preempted it leaves by itself, and nobody is asked about the host that died."""
    attempts = story.result["attempts"]
    ends = [(one["backend"], one["reason"]) for one in attempts]
    assert ends == [
        ("local@one", "PREEMPTED"),
        ("local@two", "LOST"),
        ("local@three", "CERT_FAIL"),
    ]
    assert [one["by"] for one in story.result["resolutions"]] == ["temporal-fabric"]
    assert "HELD" not in [one["state"] for one in story.result["timeline"]]


async def test_nothing_is_lost_on_the_way(story: _Story) -> None:
    """Each row is there once, under the epoch that made it; none is made again after a farewell."""
    capsule = Capsule.open(story.result["capsule"])
    assert capsule.verify() == []
    rows = query([capsule], "SELECT iter, epoch FROM telemetry ORDER BY seq")[1]
    assert [row[0] for row in rows] == list(range(10, 12_001, 10))
    assert [row[1] for row in rows] == sorted(row[1] for row in rows)
    assert {row[1] for row in rows} == {1, 2, 3}
    first = story.result["attempts"][0]["flow"]["iteration"]
    assert [epoch for iteration, epoch in rows if iteration in {first, first + 10}] == [1, 2]


async def test_the_store_keeps_no_copies(story: _Story) -> None:
    """Once the capsule is sealed the copies are gone."""
    assert story.left == []
