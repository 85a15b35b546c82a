"""Nobody shares a device: not over the death of worker and launcher, not between two workers."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from temporal_fabric import Fabric
from temporal_fabric.config import Settings, host_id
from temporal_fabric.connection import connect
from temporal_fabric.launcher import LauncherClient
from temporal_fabric.testing.environment import FabricEnvironment
from temporal_fabric.testing.nvml import StandIn
from tests.gpus.test_gpus import A, B

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from temporal_fabric.handle import ExperimentHandle
    from temporal_fabric.outcomes import ExperimentResult
    from temporal_fabric.status import ExperimentStatus
    from temporal_fabric.testing.nvml import StandInNvml
    from tests.gpus.holding import Holding

_OTHER = "other"
"""The pool of a second worker."""

_AGAIN: dict[str, Any] = {"retry": {"on": ["LOST"], "max_attempts": 3}}


@asynccontextmanager
async def _fresh(
    nvml: StandInNvml, address: str = "", pool: str = "default"
) -> AsyncGenerator[FabricEnvironment]:
    store = (nvml.reservations.parent / "store").as_uri()
    env = {**nvml.env, "FABRIC_SLOTS": "8", "FABRIC_POOLS": pool}
    async with FabricEnvironment.fresh(env, address=address, store=store) as found:
        yield found


async def _fabric(environment: FabricEnvironment) -> Fabric:
    settings = Settings.load(home=environment.home, env=environment.env, cwd=environment.home)
    return Fabric(await connect(settings, address=environment.address), settings)


async def _until(handle: ExperimentHandle, wanted: Callable[[ExperimentStatus], bool]) -> None:
    async with asyncio.timeout(90):
        while not wanted(await handle.status()):
            await asyncio.sleep(0.2)


async def _results(handles: list[ExperimentHandle]) -> list[ExperimentResult]:
    async with asyncio.timeout(120):
        return [await handle.result() for handle in handles]


async def _adopted(fabric: Fabric, count: int) -> None:
    async with asyncio.timeout(90):
        while (await fabric.backends())[0].used != count:
            await asyncio.sleep(0.2)


async def _kill_launcher(environment: FabricEnvironment) -> None:
    async with await LauncherClient.connect(environment.settings.launcher) as client:
        os.kill(client.launcher_pid, signal.SIGKILL)


async def test_four_tasks_on_two_devices_over_every_death(
    nvml: StandInNvml, holding: Holding
) -> None:
    """Two run and two wait, and are told so; worker and launcher are killed; none share."""
    nvml.show(A, B)
    async with _fresh(nvml) as env:
        fabric = await _fabric(env)
        handles = [await fabric.submit(holding.body(**_AGAIN)) for _ in range(4)]
        await holding.wait(2)
        others = [handle for handle in handles if handle.id not in dict(holding.had)]
        for handle in others:
            await _until(handle, lambda status: status.reason == "WAITING_FOR_CAPACITY")
        message = (await others[0].status()).message
        env.kill_worker()
        env.start_worker()
        await _adopted(fabric, 2)
        survived = len(holding.had)
        await _kill_launcher(env)
        await holding.wait(4)
        holding.go()
        results = await _results(handles)
        (told,) = await fabric.backends()

    assert "waits for 1 GPU on local@" in message
    assert survived == 2
    assert [result.state for result in results] == ["SUCCEEDED"] * 4
    assert not holding.shared
    assert {device for _, ids in holding.had for device in ids} == {A.uuid, B.uuid}
    assert all(len(ids) == 1 for _, ids in holding.had)
    assert all(result.attempts[-1].gpus for result in results)
    assert [row["state"] for row in told.gpus] == ["free", "free"]


async def test_one_that_needs_both_is_not_passed_for_ever(
    nvml: StandInNvml, holding: Holding
) -> None:
    """While one device is free, a request for two waits first in line and later ones behind it."""
    nvml.show(A, B)
    async with _fresh(nvml) as env:
        fabric = await _fabric(env)
        one = await fabric.submit(holding.body(1))
        await holding.wait(1)
        both = await fabric.submit(holding.body(2))
        await _until(both, lambda status: status.reason == "WAITING_FOR_CAPACITY")
        last = await fabric.submit(holding.body(1))
        await _until(last, lambda status: status.live.get("ahead") == 1)
        explained = (await both.explain()).why
        holding.go()
        await _results([one, both, last])

    assert "GPUs needed of local@" in explained
    assert [who for who, _ in holding.had] == [one.id, both.id, last.id]
    assert not holding.shared


async def test_two_workers_race_for_the_same_devices(nvml: StandInNvml, holding: Holding) -> None:
    """Workers of two homes take eight tasks for two devices: all succeed, and none share."""
    nvml.show(A, B)
    async with _fresh(nvml) as env, _fresh(nvml, env.address, _OTHER):
        fabric = await _fabric(env)
        holding.go()
        bodies = [holding.body(seconds=0.3, pool=name) for name in ("default", _OTHER) * 4]
        handles = [await fabric.submit(body) for body in bodies]
        results = await _results(handles)

    assert {result.state for result in results} == {"SUCCEEDED"}
    assert len({result.backend for result in results}) == 2
    assert len(holding.had) == 8
    assert not holding.shared


async def test_who_is_gone_keeps_a_device_until_its_end_is_proven(
    nvml: StandInNvml, holding: Holding
) -> None:
    """Worker and launcher killed, another home does not get the device; then it does."""
    nvml.show(StandIn("GPU-one"))
    async with _fresh(nvml) as env, _fresh(nvml, env.address, _OTHER) as other:
        fabric = await _fabric(env)
        here, there = [f"local@{host_id(home.home, {})}" for home in (env, other)]
        first = await fabric.submit(holding.body(**_AGAIN))
        await holding.wait(1)
        env.kill_worker()
        await _kill_launcher(env)
        second = await fabric.submit(holding.body(pool=_OTHER))
        await _until(second, lambda status: status.reason == "WAITING_FOR_CAPACITY")
        (held,) = [row for row in await (await _fabric(other)).backends() if row.name == there]
        env.start_worker()
        holding.go()
        results = await _results([first, second])

    assert f"reserved for default@{first.id}@1 on {here}" in held.gpus[0]["state"]
    assert [result.state for result in results] == ["SUCCEEDED", "SUCCEEDED"]
    assert results[0].epoch == 2
    assert not holding.shared
