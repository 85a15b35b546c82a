"""What waiting and running experiments cost a worker and its server, as their number grows.

For each number a fabric of its own. Waiting: every place is held by a sleeping experiment while
so many others queue; then the places are freed and the rate of the first ends is measured.
Running: so many places, each with a sleeping experiment.

``python benchmarks/bench_load.py [--waiting 10 100 1000 5000] [--running 10 100 400]``
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from typing import TYPE_CHECKING

from cpu import cpu_s, rss_mib

from temporal_fabric import Capsule, Fabric
from temporal_fabric.connection import connect
from temporal_fabric.launcher import LauncherClient
from temporal_fabric.testing.environment import FabricEnvironment

if TYPE_CHECKING:
    from temporal_fabric import ExperimentHandle

PLACES = 2
SUBMITTED_AT_ONCE = 50
ENDS = 100
"""How many ends the rate is measured over, where so many wait."""

SETTLE_S = 15.0
WINDOW_S = 10.0


class Usage:
    """CPU and memory of the processes of one fabric, by name."""

    def __init__(self, pids: dict[str, int]) -> None:
        self._pids = pids

    async def over(self, window_s: float) -> str:
        """Return per cent of one core over a while, and memory at its end, as table cells."""
        before = {name: cpu_s(pid) for name, pid in self._pids.items()}
        began = time.monotonic()
        await asyncio.sleep(window_s)
        passed = time.monotonic() - began
        return " | ".join(
            f"{100 * (cpu_s(pid) - before[name]) / passed:.1f} % | {rss_mib(pid):.0f}"
            for name, pid in self._pids.items()
        )


async def _usage(environment: FabricEnvironment) -> Usage:
    launcher = await LauncherClient.connect(environment.settings.launcher, start=False)
    found = {"launcher": launcher.launcher_pid}
    await launcher.aclose()
    if environment.worker is None or environment.server is None:
        raise SystemExit("worker or server is gone")
    return Usage({"worker": environment.worker.pid, "server": environment.server.info.pid} | found)


async def _submitted(fabric: Fabric, seconds: int, many: int) -> list[ExperimentHandle]:
    places = asyncio.Semaphore(SUBMITTED_AT_ONCE)

    async def one() -> ExperimentHandle:
        async with places:
            command = ["/bin/sleep", str(seconds)] if seconds else ["/bin/true"]
            return await fabric.submit({"payload": {"process": {"command": command}}})

    return list(await asyncio.gather(*(one() for _ in range(many))))


async def _until_running(handles: list[ExperimentHandle]) -> None:
    for handle in handles:
        while (await handle.status(detail=False)).state != "RUNNING":  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.5)


async def _first_ends(handles: list[ExperimentHandle], many: int) -> list[str]:
    """Return the capsules of the first so many that end."""
    pending = {asyncio.create_task(handle.result()) for handle in handles}
    capsules: list[str] = []
    while len(capsules) < many:
        ended, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        capsules += [task.result().capsule for task in ended]
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    return capsules


async def waiting(many: int) -> str:
    """Return a row: the cost of so many experiments in the queue."""
    config = f"[backends.local]\nslots = {PLACES}\n"
    async with FabricEnvironment.fresh(config=config) as environment:
        fabric = Fabric(
            await connect(environment.settings, address=environment.address), environment.settings
        )
        holders = await _submitted(fabric, 3600, PLACES)
        await _until_running(holders)
        began = time.monotonic()
        handles = await _submitted(fabric, 0, many)
        accepted = many / (time.monotonic() - began)
        await asyncio.sleep(SETTLE_S)
        used = await (await _usage(environment)).over(WINDOW_S)
        began = time.monotonic()
        for handle in holders:
            await handle.cancel()
        capsules = await _first_ends(handles, min(ENDS, many))
        rate = len(capsules) / (time.monotonic() - began)
        if any(Capsule.open(uri).verify() for uri in capsules):
            raise SystemExit("a capsule does not verify")
        return f"| {many} waiting | {used} | {accepted:.1f} | {rate:.1f} |"


async def running(many: int) -> str:
    """Return a row: the cost of so many experiments that run."""
    config = f"[backends.local]\nslots = {many}\n"
    async with FabricEnvironment.fresh(config=config) as environment:
        fabric = Fabric(
            await connect(environment.settings, address=environment.address), environment.settings
        )
        began = time.monotonic()
        handles = await _submitted(fabric, 3600, many)
        accepted = many / (time.monotonic() - began)
        await _until_running(handles)
        await asyncio.sleep(SETTLE_S)
        used = await (await _usage(environment)).over(WINDOW_S)
        return f"| {many} running | {used} | {accepted:.1f} | |"


async def main(asked: argparse.Namespace) -> None:
    """Print one row for each number."""
    print(
        "| | worker CPU | MiB | server CPU | MiB | launcher CPU | MiB "
        "| submitted a second | ended a second |\n|---|---|---|---|---|---|---|---|---|"
    )
    for many in asked.waiting:
        print(await waiting(many), flush=True)
    for many in asked.running:
        print(await running(many), flush=True)


if __name__ == "__main__":
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    parser = argparse.ArgumentParser()
    parser.add_argument("--waiting", type=int, nargs="*", default=[10, 100, 1000, 5000])
    parser.add_argument("--running", type=int, nargs="*", default=[10, 100, 400])
    asyncio.run(main(parser.parse_args()))
