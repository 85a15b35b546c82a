"""What a job costs in a list of a hundred on a Slurm cluster: as an array, and one by one.

In turn, on one site of tests: the adapter, which makes one array of them; the adapter without
arrays; raw ``sbatch`` over one connection of paramiko, once for each job; and one raw array. A list
is over when all its jobs are taken. They are held back, so that nothing of them runs meanwhile.

``python benchmarks/bench_slurm_lists.py [--jobs 100] [--count 3]``
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))

from raw_starts import Slurm

from temporal_fabric.testing.slurm_bench import SlurmBench
from temporal_fabric.testing.slurm_site import SlurmSite

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from temporal_fabric.adapters.contract import Adapter, AttemptSpec

    Way = Callable[[Sequence[AttemptSpec]], Awaitable[None]]


def adapted(adapter: Adapter) -> Way:
    """Submit all at once."""

    async def submit(attempts: Sequence[AttemptSpec]) -> None:
        await asyncio.gather(*(adapter.submit(attempt) for attempt in attempts))

    return submit


def one_by_one(raw: Slurm) -> Way:
    """Call sbatch for each."""

    async def submit(attempts: Sequence[AttemptSpec]) -> None:
        for attempt in attempts:
            await raw.start(attempt)

    return submit


def one_array(raw: Slurm) -> Way:
    """Call sbatch once: the same job so many times."""

    async def submit(attempts: Sequence[AttemptSpec]) -> None:
        await raw.start(attempts[0], f"--array=0-{len(attempts) - 1}")

    return submit


async def measure(bench: SlurmBench, jobs: int, count: int) -> dict[str, list[float]]:
    """Return the milliseconds that a job takes by each way, after one round that warms up."""
    adapters, raw = [bench.make(), bench.make(array_min=0)], Slurm(bench)
    ways = {
        "fabric, one array": adapted(adapters[0]),
        "fabric, without arrays": adapted(adapters[1]),
        "sbatch over paramiko, each": one_by_one(raw),
        "sbatch over paramiko, one array": one_array(raw),
    }
    for adapter in adapters:
        await adapter.inventory()
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(count + 1):
        for name, submit in sorted(ways.items(), reverse=bool(turn % 2)):
            attempts = [bench.attempt(bench.key(), "pass") for _ in range(jobs if turn else 10)]
            since = time.perf_counter()
            await submit(attempts)
            if turn:
                found[name].append(1000 * (time.perf_counter() - since) / jobs)
            await bench.settle()
            bench.site.run("scancel", "-u", bench.site.user)
    for adapter in adapters:
        await adapter.aclose()
    await raw.clear()
    return found


async def on_a_site(jobs: int, count: int) -> dict[str, list[float]]:
    """Bring a site up whose queue stands still, measure, and end it."""
    site = SlurmSite()
    try:
        site.start()
        site.run("scontrol", "update", "PartitionName=main", "State=DOWN")
        with tempfile.TemporaryDirectory(prefix="fab") as folder:
            bench = SlurmBench(Path(folder), site)
            try:
                return await measure(bench, jobs, count)
            finally:
                await bench.aclose()
    finally:
        site.stop()


def main() -> None:
    """Measure, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100, help="of a list")
    parser.add_argument("--count", type=int, default=3, help="lists by each way")
    asked = parser.parse_args()
    load = os.getloadavg()[0]
    found = asyncio.run(on_a_site(asked.jobs, asked.count))
    print(
        f"{asked.count} lists of {asked.jobs} by each way; load average {load:.1f} before, "
        f"{os.getloadavg()[0]:.1f} after"
    )
    print("| way | ms a job | from | to |")
    print("|---|---|---|---|")
    for name, times in found.items():
        middle = statistics.median(times)
        print(f"| {name} | {middle:.1f} | {min(times):.1f} | {max(times):.1f} |")


if __name__ == "__main__":
    main()
