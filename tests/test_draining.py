"""A backend out of service: what runs goes on, nothing new starts, and everybody is told why."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from temporal_fabric import Fabric, RequestRejected
from temporal_fabric.config import Settings
from temporal_fabric.connection import connect
from temporal_fabric.errors import BackendError
from tests.bodies import shell

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from temporal_fabric.backend_state import BackendState
    from temporal_fabric.handle import ExperimentHandle
    from temporal_fabric.testing.environment import FabricEnvironment

_ONE = '[backends.local]\nkind = "local"\nslots = 1\nlabels = {room = "basement"}\n'
_TWO = (
    "[backends.old]\nslots = 2\nlabels = {generation = 1}\n"
    "[backends.new]\nslots = 2\nlabels = {generation = 2}\n"
)


async def _fabric(environment: FabricEnvironment, config: str) -> Fabric:
    (environment.home / "fabric.toml").write_text(config)
    environment.start_worker()
    settings = Settings.load(home=environment.home, env={}, cwd=environment.home)
    settings = replace(settings, store=environment.settings.store)
    return Fabric(await connect(settings, address=environment.address), settings)


async def _until(handle: ExperimentHandle, wanted: Callable[[Any], bool]) -> None:
    async with asyncio.timeout(60):
        while not wanted(await handle.status(detail=False)):
            await asyncio.sleep(0.1)


async def _cli(environment: FabricEnvironment, *args: str) -> tuple[int, str, str]:
    done = await asyncio.to_thread(environment.cli, *args)
    return (done.returncode, done.stdout, done.stderr)


async def _in_line(fabric: Fabric, count: int) -> BackendState:
    """Return the only backend once so many wait at its worker.

    What waited at a killed one comes to the next when the server has missed its heartbeats.
    """
    async with asyncio.timeout(90):
        while True:
            (told,) = await fabric.backends()
            if told.waiting == count:
                return told
            await asyncio.sleep(0.5)


async def _running(fabric: Fabric, go: Path, **more: Any) -> ExperimentHandle:
    """Submit what runs until the file is there, and keep an output; wait until it runs."""
    script = f"until test -e {go}; do sleep 0.1; done; echo done > $FABRIC_OUTPUT_DIR/x"
    handle = await fabric.submit(shell(script, **more))
    await _until(handle, lambda status: status.state == "RUNNING")
    return handle


async def test_what_runs_ends_and_nothing_starts_until_it_is_undrained(
    own_environment: FabricEnvironment, tmp_path: Path
) -> None:
    """One runs and is sealed, two wait as DRAINED across a killed worker, then both run."""
    env = own_environment
    fabric = await _fabric(env, _ONE)
    runs = await _running(fabric, tmp_path / "go")
    told = await fabric.drain("local", "new disk")
    waits = [await fabric.submit(shell(f"touch {tmp_path}/{name}")) for name in "ab"]
    for handle in waits:
        await _until(handle, lambda status: status.reason == "DRAINED")
    env.kill_worker()
    env.start_worker()
    await _until(runs, lambda status: status.state == "RUNNING")
    (tmp_path / "go").touch()
    result = await asyncio.wait_for(runs.result(), 60)
    drained = await _in_line(fabric, 2)
    status = await _cli(env, "status", waits[0].id)
    explained = await waits[1].explain()
    started = [name for name in "ab" if (tmp_path / name).exists()]
    undrained = await _cli(env, "undrain", "local")
    ended = [await asyncio.wait_for(handle.result(), 60) for handle in waits]
    (after,) = await fabric.backends()

    assert (told.drained, told.used, told.drained_reason) == (True, 1, "new disk")
    assert (result.state, result.epoch, [o.path for o in result.outputs]) == ("SUCCEEDED", 1, ["x"])
    assert (drained.drained_since, drained.used, drained.waiting) == (told.drained_since, 0, 2)
    assert drained.unusable == f"drained since {told.drained_since}: new disk"
    assert f"waits for {told.name}, drained since {told.drained_since}: new disk" in status[1]
    assert explained.reason == "DRAINED"
    assert "new disk" in explained.why
    assert explained.change == f"temporal-fabric undrain {told.name}"
    assert started == []
    assert undrained[0] == 0
    assert [one.state for one in ended] == ["SUCCEEDED", "SUCCEEDED"]
    assert (after.drained, after.drained_reason, after.unusable) == (False, "", "")


async def test_who_waits_for_a_drained_backend_goes_to_another_that_fits(
    own_environment: FabricEnvironment, tmp_path: Path
) -> None:
    """Of two backends the drained one is passed over; who needs its label waits, and is told."""
    env = own_environment
    fabric = await _fabric(env, _TWO)
    drained = await fabric.drain("old", "sold")
    only_old = {"requirements": {"constraints": ["generation == 1"]}}
    first = shell("true", backends=["old", "new"])
    moved = await asyncio.wait_for((await fabric.submit(first)).result(), 60)
    bound = await fabric.submit(shell(f"touch {tmp_path}/ran", **only_old))
    await _until(bound, lambda status: status.reason == "DRAINED")
    change = (await bound.explain()).change
    request = tmp_path / "request.json"
    request.write_text(json.dumps(shell("true", **only_old)))
    planned = await _cli(env, "plan", str(request))
    explained = await _cli(env, "explain", bound.id)
    left = not (tmp_path / "ran").exists()
    await fabric.undrain(drained.name)
    result = await asyncio.wait_for(bound.result(), 60)

    assert moved.backend.startswith("new@")
    assert change.startswith(f"temporal-fabric undrain {drained.name}; or on another backend")
    assert planned[0] == 0
    assert "waits" in planned[1]
    assert "sold" in planned[1]
    assert f"undrain {drained.name}" in planned[2]
    assert "DRAINED" in explained[1]
    assert left
    assert result.backend == drained.name


async def test_one_that_waits_moves_when_the_other_is_free(
    own_environment: FabricEnvironment, tmp_path: Path
) -> None:
    """An experiment in line for both backends takes the first place of the one in service."""
    fabric = await _fabric(own_environment, _TWO.replace("slots = 2", "slots = 1"))
    both = [await _running(fabric, tmp_path / name, backends=[name]) for name in ("old", "new")]
    handle = await fabric.submit(shell("true"))
    await _until(handle, lambda status: status.reason == "WAITING_FOR_CAPACITY")
    await fabric.drain("old")
    (tmp_path / "old").touch()
    await asyncio.wait_for(both[0].result(), 60)
    await _until(handle, lambda status: "for a place on new@" in status.message)
    status = await handle.status(detail=False)
    (tmp_path / "new").touch()
    result = await asyncio.wait_for(handle.result(), 60)

    assert (status.state, status.reason) == ("QUEUED", "WAITING_FOR_CAPACITY")
    assert result.backend.startswith("new@")


async def test_the_backends_as_a_table_and_as_json(own_environment: FabricEnvironment) -> None:
    """Every backend is shown with what it has; a silent one as silent; an unknown one refused."""
    env = own_environment
    fabric = await _fabric(env, _ONE)
    (local,) = await fabric.backends()
    with pytest.raises(RequestRejected, match=f"known: {local.name}") as refused:
        await fabric.drain("nowhere")
    wrong = await _cli(env, "undrain", "nowhere")
    table = await _cli(env, "backends")
    as_json = await _cli(env, "backends", "-o", "json")
    env.stop_worker()
    (silent,) = await fabric.backends()

    assert (local.kind, local.health, local.slots, local.used) == ("local", "ok", 1, 0)
    assert local.labels == {"room": "basement"}
    assert local.isolation["none"] == "yes"
    assert refused.value.problems[0].code == "E_NAME"
    assert (wrong[0], local.name in wrong[2]) == (2, True)
    assert all(text in table[1] for text in (local.name, "0/1", "room=basement"))
    (row,) = json.loads(as_json[1])
    assert row["name"] == local.name
    assert set(row) == {
        "name", "kind", "health", "slots", "used", "waiting", "drained", "drained_since",
        "drained_reason", "labels", "isolation", "usd_per_hour", "unusable", "experimental",
        "gpus", "no_gpus",
    }  # fmt: skip
    assert (silent.name, silent.health) == (local.name, "silent")
    assert "does not answer" in silent.unusable


async def test_without_a_worker_the_host_notes_it_for_the_next_one(
    own_environment: FabricEnvironment,
) -> None:
    """With worker and server away `drain` works on the host itself, and the next worker obeys."""
    env = own_environment
    fabric = await _fabric(env, _ONE)
    env.stop_worker()
    drained = await _cli(env, "drain", "local", "--reason", "cold", "-o", "json")
    again = await _cli(env, "drain", "local")
    env.start_worker()
    handle = await fabric.submit(shell("true"))
    await _until(handle, lambda status: status.reason == "DRAINED")
    (told,) = await fabric.backends()
    await fabric.undrain("local")
    result = await asyncio.wait_for(handle.result(), 60)

    since = json.loads(drained[1])["drained_since"]
    assert drained[0] == again[0] == 0
    assert f"drained since {since}: cold" in again[1]
    assert (told.health, told.drained_since, told.drained_reason) == ("ok", since, "cold")
    assert result.state == "SUCCEEDED"


async def test_a_mark_that_cannot_be_read_keeps_it_drained(
    own_environment: FabricEnvironment,
) -> None:
    """A torn mark drains its backend, says so, and `undrain` mends it."""
    env = own_environment
    fabric = await _fabric(env, _ONE)
    (env.home / "drained").mkdir()
    (env.home / "drained/local.json").write_text("{")
    (told,) = await fabric.backends()
    handle = await fabric.submit(shell("true"))
    await _until(handle, lambda status: status.reason == "DRAINED")
    await fabric.undrain("local")
    result = await asyncio.wait_for(handle.result(), 60)

    assert "cannot be read" in told.drained_reason
    assert result.state == "SUCCEEDED"


async def test_a_drained_host_hands_back_to_its_pool(
    own_environment: FabricEnvironment, tmp_path: Path
) -> None:
    """What waits at a drained host, and what comes later, runs on the other host of the pool."""
    env = own_environment
    fabric = await _fabric(env, _ONE)
    first = env.worker
    await fabric.drain("local", "new disk")
    waits = [await fabric.submit(shell("true")) for _ in range(3)]
    for handle in waits:
        await _until(handle, lambda status: status.reason == "DRAINED")
    away = {"FABRIC_HOME": str(env.home / "two"), "FABRIC_HOST_ID": "two"}
    second = env.start_worker(**away, FABRIC_STORE=env.settings.store)
    env.worker = first
    try:
        later = [await fabric.submit(shell("true")) for _ in range(3)]
        results = [await asyncio.wait_for(handle.result(), 90) for handle in waits + later]
        await fabric.drain("local@two")
        stuck = await fabric.submit(shell(f"touch {tmp_path}/ran"))
        await _until(stuck, lambda status: status.reason == "DRAINED")
        drained = not (tmp_path / "ran").exists()
        await fabric.undrain("local@two")
        last = await asyncio.wait_for(stuck.result(), 90)
    finally:
        second.terminate()
        second.wait(20)

    assert {result.backend for result in results} == {"local@two"}
    assert {result.epoch for result in results} == {1}
    assert (drained, last.backend) == (True, "local@two")


async def test_two_hosts_of_one_pool(own_environment: FabricEnvironment) -> None:
    """Each host's backend is listed, one is drained from afar, and a name that both have asks."""
    env = own_environment
    fabric = await _fabric(env, _ONE)
    away = {"FABRIC_HOME": str(env.home / "two"), "FABRIC_HOST_ID": "two"}
    first = env.worker
    second = env.start_worker(**away, FABRIC_STORE=env.settings.store)
    env.worker = first
    try:
        drained = await fabric.drain("local@two", "given back")
        found = {told.name: told for told in await fabric.backends()}
        with pytest.raises(RequestRejected, match="more than one backend"):
            await fabric.drain("local")
        (env.home / "two/drained/local.json").unlink()
        (env.home / "two/drained").rmdir()
        (env.home / "two/drained").touch()
        with pytest.raises(BackendError, match="could not be changed"):
            await fabric.drain("local@two")
    finally:
        second.terminate()
        second.wait(20)

    (own,) = found.keys() - {"local@two"}
    assert found["local@two"].drained_since == drained.drained_since
    assert (found["local@two"].drained_reason, found[own].drained) == ("given back", False)
