"""The plate of the examples on SiLA servers: what moves, moves once, whoever dies."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from temporal_fabric import Capsule, Fabric
from temporal_fabric.connection import connect
from temporal_fabric.testing.environment import FabricEnvironment
from temporal_fabric.testing.sila_bench import free_port
from tests.lab.requests import BACKEND, ROOT, plate

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

STEPS = 12


def movements(path: Path) -> Counter[tuple[str, str]]:
    """Return how often each movement of a device began and ended, by the device's own account."""
    found = Counter[tuple[str, str]]()
    for line in path.read_text().splitlines() if path.exists() else ():
        movement = json.loads(line)
        what = movement.pop("is")
        del movement["at"]
        found[what, json.dumps(movement)] += 1
    return found


@contextmanager
def held_devices(folder: Path, ports: Sequence[int]) -> Generator[None]:
    """Have plate handlers of which the n-th stands still in its n-th movement."""
    folder.mkdir()
    command = [sys.executable, "-m", "tests.lab.held_devices", str(folder), *map(str, ports)]
    devices = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert devices.stdout is not None
        for _ in ports:
            assert "listens" in devices.stdout.readline()
        yield
    finally:
        devices.kill()
        devices.communicate()


async def test_a_worker_killed_at_any_of_the_twelve_steps_repeats_none(tmp_path: Path) -> None:
    """Twelve devices stand at twelve different steps when the worker dies: each moves once."""
    ports, places = [free_port() for _ in range(STEPS)], range(1, STEPS + 1)
    config = "".join(
        BACKEND.format(place=n, port=port) for n, port in zip(places, ports, strict=True)
    )
    folder = tmp_path / "devices"
    with held_devices(folder, ports):
        async with FabricEnvironment.fresh(config=config) as env:
            fabric = Fabric(await connect(env.settings, address=env.address), env.settings)
            handles = [await fabric.submit(plate(n)) for n in places]
            async with asyncio.timeout(60):
                while any(movements(folder / f"{n}.jsonl").total() < 2 * n - 1 for n in places):
                    await asyncio.sleep(0.1)
            env.kill_worker()
            (folder / "go").touch()
            env.start_worker()
            results = [await handle.result() for handle in handles]

            for n, result in zip(places, results, strict=True):
                assert (result.state, result.epoch) == ("SUCCEEDED", 1), result
                moved = movements(folder / f"{n}.jsonl")
                assert len(moved) == 2 * STEPS, f"device {n}: {moved}"
                assert set(moved.values()) == {1}, f"device {n}: {moved}"
                capsule = Capsule.open(result.capsule)
                assert json.loads(capsule.output("read.json").read_text()) == {"Absorbance": 0.3055}
                assert capsule.verify() == []
