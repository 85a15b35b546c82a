"""GPUs of containers: what the engine is asked for; containers and processes share a host."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from temporal_fabric import ExperimentFailed, Fabric
from temporal_fabric.connection import connect
from temporal_fabric.errors import BackendUnknown
from temporal_fabric.testing.bench import Fault
from temporal_fabric.testing.docker_bench import START, DockerBench
from temporal_fabric.testing.docker_daemon import IMAGE
from temporal_fabric.testing.environment import FabricEnvironment
from tests.gpus.test_gpus import A, B

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from temporal_fabric.adapters.contract import AttemptKey
    from temporal_fabric.testing.docker_daemon import DockerDaemon
    from temporal_fabric.testing.nvml import StandInNvml
    from tests.gpus.holding import Holding

_LISTED = (A.uuid, B.uuid)
_ONE = {"requirements": {"resources": {"gpu": 1}}}
_TWO = {"requirements": {"resources": {"gpu": 2}}}


@pytest_asyncio.fixture
async def bench(
    docker: DockerDaemon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[DockerBench]:
    """A bench whose owner lists two devices; its engine never hears that it shall start."""
    monkeypatch.setenv("FABRIC_GPU_RESERVATIONS", str(tmp_path / "reserved"))
    folder = Path(tempfile.mkdtemp(prefix="fab"))
    found = DockerBench(folder, docker, START, {"gpus": list(_LISTED)})
    yield found
    await found.settle()
    await found.aclose()
    shutil.rmtree(folder)


def _container(docker: DockerDaemon, key: AttemptKey) -> str:
    return docker.client("ps", "-aq", "--filter", f"label=temporal-fabric.attempt={key}").strip()


async def test_the_engine_is_asked_for_reserved_devices(
    bench: DockerBench, docker: DockerDaemon
) -> None:
    """The created container names its device; two attempts have two, until they are forbidden."""
    keys = [bench.key(), bench.key()]
    cut_off = await bench.faulty("submit", Fault.LOST_REQUEST)
    for key in keys:
        with pytest.raises(BackendUnknown):
            await cut_off.submit(bench.attempt(key, "report('start')", **_ONE))
    made = [
        json.loads(await asyncio.to_thread(docker.client, "inspect", _container(docker, key)))[0]
        for key in keys
    ]
    adapter = bench.made_with()
    none_free = await adapter.free_gpus(bench.request("", **_ONE), ())
    await adapter.terminate(keys[0], 0.0)
    free = await adapter.free_gpus(bench.request("", **_ONE), ())
    both = await adapter.free_gpus(bench.request("", **_TWO), ())
    await adapter.aclose()

    asked = [one["HostConfig"]["DeviceRequests"] for one in made]
    assert {one["DeviceIDs"][0] for (one,) in asked} == set(_LISTED)
    assert all(one["Capabilities"] == [["gpu"]] for (one,) in asked)
    for one, (request,) in zip(made, asked, strict=True):
        (device,) = request["DeviceIDs"]
        assert one["Config"]["Labels"]["temporal-fabric.gpus"] == device
        assert f"NVIDIA_VISIBLE_DEVICES={device}" in one["Config"]["Env"]
    assert (none_free, both) == (None, None)
    assert free in {(A.uuid,), (B.uuid,)}


async def test_containers_and_processes_share_one_hosts_devices(
    docker: DockerDaemon, nvml: StandInNvml, holding: Holding
) -> None:
    """A container waits for what a process has; then the engine's own words are told."""
    nvml.show(A)
    config = (
        "[backends.local]\nslots = 4\n[backends.docker]\nkind = 'docker'\nslots = 4\n"
        f"[backends.docker.options]\nhost = '{docker.host}'\nimage = '{IMAGE}'\n"
        "pull = false\ngpus = ['all']\n"
    )
    async with FabricEnvironment.fresh(nvml.env, config=config) as env:
        fabric = Fabric(await connect(env.settings, address=env.address), env.settings)
        process = await fabric.submit(holding.body(backends=["local"]))
        await holding.wait(1)
        container = await fabric.submit(
            {"id": "c", "payload": {"process": {"command": ["true"]}}, "backends": ["docker"]}
            | _ONE
        )
        async with asyncio.timeout(90):
            while (await container.status()).reason != "WAITING_FOR_CAPACITY":
                await asyncio.sleep(0.2)
        holding.go()
        ended = await process.result()
        with pytest.raises(ExperimentFailed, match="could not select device driver") as failed:
            await container.result()
        states = [row["state"] for told in await fabric.backends() for row in told.gpus]

    assert ended.state == "SUCCEEDED"
    assert failed.value.reason == "SETUP"
    assert "NVIDIA Container Toolkit" in str(failed.value)
    assert failed.value.result["attempts"][0]["gpus"] == [A.uuid]
    assert states == ["free", "free"]
