"""Deaths around a sandboxed payload, and what is left of it afterwards: nothing."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from temporal_fabric import Capsule, ExperimentFailed
from temporal_fabric.launcher import LauncherClient, syscalls
from temporal_fabric.states import State
from tests.bodies import shell
from tests.isolation.place import BOMB, mounts_of
from tests.launcher.place import cgroups_of, until

if TYPE_CHECKING:
    from temporal_fabric.client import Fabric
    from temporal_fabric.handle import ExperimentHandle
    from temporal_fabric.testing.environment import FabricEnvironment

pytestmark = pytest.mark.usefixtures("needs_bubblewrap")

COUNTED = 'echo start >> "$FABRIC_CHECKPOINT_DIR/starts"; '
DAEMONS = "setsid sleep 5000 & (setsid sh -c 'sleep 5000 & sleep 5000' &); "


async def _runs(handle: ExperimentHandle) -> None:
    async with asyncio.timeout(30):
        while (await handle.status()).state != State.RUNNING:
            await asyncio.sleep(0.1)


def _sleepers(mark: str) -> int:
    found = 0
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            found += f"FABRIC_REQUEST_ID={mark}".encode() in path.read_bytes()
        except OSError:
            continue
    return found


async def test_worker_death_changes_nothing(running: tuple[FabricEnvironment, Fabric]) -> None:
    """The sandboxed payload is adopted: it runs once, and its outputs arrive."""
    env, fabric = running
    body = shell(
        COUNTED + 'sleep 13; echo done > "$FABRIC_OUTPUT_DIR/o"',
        isolation="sandbox",
        outputs=[{"source_path": "o"}],
    )
    handle = await fabric.submit(body)
    await _runs(handle)

    env.kill_worker()
    env.start_worker()
    result = await handle.result()

    capsule = Capsule.open(result.capsule)
    assert result.epoch == 1
    assert (capsule.folder / "checkpoints/starts").read_text() == "start\n"
    assert (capsule.folder / "artifacts/o").read_text() == "done\n"


async def test_launcher_death_is_lost_and_leaves_nothing(
    running: tuple[FabricEnvironment, Fabric],
) -> None:
    """The whole sandbox dies with its launcher; no process, group or mount is left."""
    env, fabric = running
    handle = await fabric.submit(shell(COUNTED + DAEMONS + "sleep 5000", isolation="sandbox"))
    await _runs(handle)
    assert await until(lambda: _sleepers(handle.id) >= 4)

    async with await LauncherClient.connect(env.settings.launcher, start=False) as launcher:
        pid = launcher.launcher_pid
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ExperimentFailed) as caught:
        await handle.result()
    env.stop_worker()
    await env.stop_launcher()

    assert caught.value.reason == "LOST"
    assert await until(lambda: _sleepers(handle.id) == 0)
    assert cgroups_of(syscalls.home_id(env.settings.launcher)) == []
    assert mounts_of(env.home) == []


async def test_a_bomb_in_a_sandbox_harms_nobody(
    running: tuple[FabricEnvironment, Fabric], tmp_path: Path
) -> None:
    """It stops at its limit, ends at its wall limit, and its neighbour runs meanwhile."""
    _, fabric = running
    (tmp_path / "bomb.py").write_text(BOMB + "time.sleep(600)\n")
    bomb = await fabric.submit(
        {
            "id": "bomb",
            "payload": {
                "python": {
                    "entry_point": "bomb.py",
                    "source": (tmp_path / "bomb.py").read_text().splitlines(),
                    "isolation": "sandbox",
                }
            },
            "limits": {"pids": 25, "wall_s": 4, "grace_s": 0.5},
        }
    )
    await _runs(bomb)
    neighbour = await (await fabric.submit(shell("echo fine", isolation="sandbox"))).result()
    with pytest.raises(ExperimentFailed) as caught:
        await bomb.result()

    log = Capsule.open(caught.value.result["capsule"]).folder / "logs/1/stdout.log"
    assert neighbour.state == "SUCCEEDED"
    assert caught.value.reason == "TIMEOUT"
    assert int(log.read_text()) == 24
    assert await until(lambda: _sleepers("bomb") == 0)


async def test_a_sandbox_can_be_paused(running: tuple[FabricEnvironment, Fabric]) -> None:
    """A paused sandbox stands still and goes on as the same process."""
    _, fabric = running
    script = "import os, time\nfor n in range(40): print(n, flush=True); time.sleep(0.1)"
    body = {
        "id": "paused",
        "payload": {
            "python": {"entry_point": "a.py", "source": script.splitlines(), "isolation": "sandbox"}
        },
    }
    handle = await fabric.submit(body)
    await _runs(handle)
    await handle.pause()
    path = fabric.settings.runs / "default" / "paused" / "1" / "stdout.log"
    before = path.read_text()
    await asyncio.sleep(1)
    still = path.read_text()
    await handle.resume()
    result = await handle.result()

    log = Capsule.open(result.capsule).folder / "logs/1/stdout.log"
    assert still == before
    assert log.read_text().split() == [str(number) for number in range(40)]
    assert result.attempts[0].paused_s >= 1
