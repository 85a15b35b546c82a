"""What an experiment costs beside a bare Temporal workflow of three activities.

One server, one worker process each, the two measured in turn, so that whatever else the
machine does slows both. The fabric runs as in production: server and store fsync, each
experiment is a process under the launcher with its record, and ends in a sealed capsule. Every
digest of every capsule is verified afterwards; a benchmark that lost one fails.

Beside the rates stands the CPU time that one of each costs, of server, worker, launcher with its
payloads, and client: at saturation it decides the rate, and other work on the machine hardly
changes it.

``python benchmarks/bench_engine.py [--pairs 7] [--many 200] [--lone 10] [--at-once 50]``
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bare_worker import QUEUE, READY, Bare
from cpu import cpu_s

from temporal_fabric import Capsule, Fabric
from temporal_fabric.connection import connect
from temporal_fabric.launcher import LauncherClient
from temporal_fabric.testing.environment import FabricEnvironment

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from temporalio.client import Client


class Contest:
    """The two ways to the same nothing.

    Args:
        fabric: Submits the experiments.
        client: Starts the bare workflows.
    """

    def __init__(self, fabric: Fabric, client: Client) -> None:
        self._fabric = fabric
        self._client = client
        self._count = 0
        self.capsules: list[str] = []

    async def experiment(self) -> None:
        """Run one experiment that does nothing, from submit to its result."""
        self._count += 1
        body = {"id": f"n-{self._count}", "payload": {"process": {"command": ["/bin/true"]}}}
        handle = await self._fabric.submit(body)
        self.capsules.append((await handle.result()).capsule)

    async def bare(self) -> None:
        """Run one bare workflow."""
        self._count += 1
        await self._client.execute_workflow(Bare.run, id=f"bare-{self._count}", task_queue=QUEUE)

    def verify(self) -> None:
        """Compare every file of every capsule with its digest."""
        wrong = [uri for uri in self.capsules if Capsule.open(uri).verify()]
        if wrong:
            raise SystemExit(f"capsules that do not verify: {wrong}")


async def rate(work: Callable[[], Awaitable[None]], many: int, at_once: int) -> float:
    """Return how many a second are done with ``at_once`` in flight."""
    places = asyncio.Semaphore(at_once)

    async def one() -> None:
        async with places:
            await work()

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(many)))
    return many / (time.perf_counter() - began)


async def latencies(
    ways: Mapping[str, Callable[[], Awaitable[None]]], many: int
) -> dict[str, float]:
    """Return the median milliseconds of so many of each, one at a time and in turn."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(many):
        for name, work in ways.items():
            began = time.perf_counter()
            await work()
            found[name].append(1000 * (time.perf_counter() - began))
    return {f"{name} ms": statistics.median(times) for name, times in found.items()}


class Spent:
    """CPU time of the processes of each side, by name.

    Args:
        pids: Of each side: what its processes do, and their ids.
    """

    def __init__(self, pids: Mapping[str, Mapping[str, int]]) -> None:
        self._pids = pids

    async def on(self, side: str, work: Awaitable[float], many: int) -> dict[str, float]:
        """Return the rate of the work, and its milliseconds of CPU for each of so many."""
        before = {name: cpu_s(pid) for name, pid in self._pids[side].items()}
        found = {f"{side} rate": await work}
        spent = {
            f"{side} {name} CPU ms": 1000 * (cpu_s(pid) - before[name]) / many
            for name, pid in self._pids[side].items()
        }
        return found | spent | {f"{side} CPU ms": sum(spent.values())}


async def measure(
    contest: Contest, spent: Spent, asked: argparse.Namespace
) -> list[dict[str, float]]:
    """Return one row for each pair; the order within a pair alternates."""
    ways = {"fabric": contest.experiment, "bare": contest.bare}
    for way in ways.values():
        await rate(way, 20, 10)
    rows: list[dict[str, float]] = []
    for pair in range(asked.pairs):
        row: dict[str, float] = {}
        for name in sorted(ways, reverse=bool(pair % 2)):
            work = rate(ways[name], asked.many, asked.at_once)
            row |= await spent.on(name, work, asked.many)
        row |= await latencies(ways, asked.lone)
        row["rate ratio"] = row["fabric rate"] / row["bare rate"]
        row["CPU ratio"] = row["bare CPU ms"] / row["fabric CPU ms"]
        row["ms ratio"] = row["fabric ms"] / row["bare ms"]
        rows.append(row)
        print(json.dumps({name: round(value, 2) for name, value in row.items()}), flush=True)
    return rows


def report(rows: list[dict[str, float]]) -> None:
    """Print medians with their range."""
    print("| | median | least | most |\n|---|---|---|---|")
    for name in rows[0]:
        values = [row[name] for row in rows]
        median = statistics.median(values)
        print(f"| {name} | {median:.2f} | {min(values):.2f} | {max(values):.2f} |")


def start_bare_worker(address: str) -> subprocess.Popen[str]:
    """Start the other side's worker and return when it polls."""
    command = [sys.executable, str(Path(__file__).with_name("bare_worker.py")), address]
    bare = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    if bare.stdout is None or READY not in bare.stdout.readline():
        bare.kill()
        raise SystemExit("the bare worker did not start")
    return bare


async def sides(environment: FabricEnvironment, bare: int) -> dict[str, dict[str, int]]:
    """Return what runs on each side, and its process id."""
    launcher = await LauncherClient.connect(environment.settings.launcher, start=True)
    alone = {"launcher": launcher.launcher_pid}
    await launcher.aclose()
    if environment.worker is None or environment.server is None:
        raise SystemExit("worker or server is gone")
    both = {"server": environment.server.info.pid, "client": os.getpid()}
    return {
        "fabric": both | {"worker": environment.worker.pid} | alone,
        "bare": both | {"worker": bare},
    }


async def main(asked: argparse.Namespace) -> None:
    """Measure on a server and with workers of its own."""
    home = Path(tempfile.mkdtemp(prefix="fab"))
    # Without compiled modules each workflow would be compiled anew in the SDK's sandbox.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    environment = FabricEnvironment(home)
    environment.start_server(durable=True)
    bare = start_bare_worker(environment.address)
    try:
        environment.start_worker()
        client = await connect(environment.settings, address=environment.address)
        contest = Contest(Fabric(client, environment.settings), client)
        spent = Spent(await sides(environment, bare.pid))
        rows = await measure(contest, spent, asked)
        contest.verify()
        print(f"{len(contest.capsules)} capsules verified")
        report(rows)
    finally:
        bare.kill()
        bare.wait()
        await environment.close()
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for option, default in (("pairs", 7), ("many", 200), ("lone", 10), ("at-once", 50)):
        parser.add_argument(f"--{option}", type=int, default=default)
    asyncio.run(main(parser.parse_args()))
