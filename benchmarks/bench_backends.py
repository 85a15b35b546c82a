"""How long a backend takes to start something, with the fabric and with its raw client alone.

One after the other, in turn and on the same connection: the adapter submits an attempt, and the raw
client starts the same program. The program reports to a ledger in another process, so a start is
the moment at which the payload itself speaks. Medians of the pairs; what else the machine does
slows both.

``python benchmarks/bench_backends.py [KIND ...] [--count 10]``
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

from raw_starts import WAYS

from temporal_fabric.adapters.contract import JobHandle
from tools.make_conformance import BENCHES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from temporal_fabric.adapters.contract import AttemptKey, AttemptSpec
    from temporal_fabric.testing.bench import Bench

_LIMIT_S = 120.0
_CODE = "report('start')"


async def started(bench: Bench, key: AttemptKey) -> float:
    """Return when the payload of an attempt has spoken, in Unix seconds."""
    wanted = {"id": key.request_id, "epoch": str(key.epoch), "event": "start"}
    async with asyncio.timeout(_LIMIT_S):
        while not (rows := bench.ledger.lines(**wanted)):  # noqa: ASYNC110 - another process's file
            await asyncio.sleep(0.01)
    return float(rows[0]["at"])


async def timed(
    bench: Bench, attempt: AttemptSpec, start: Callable[[AttemptSpec], Awaitable[object]]
) -> tuple[float, float]:
    """Return the milliseconds until a start has been taken, and until its payload spoke."""
    began, since = time.time(), time.perf_counter()
    await start(attempt)
    taken = time.perf_counter() - since
    return (1000 * taken, 1000 * (await started(bench, attempt.key) - began))


async def measure(bench: Bench, kind: str, count: int) -> str:
    """Return the row of one kind of backend: medians of so many pairs, after one that warms up."""
    raw, called = WAYS[kind]
    way, adapter = raw(bench), bench.make()
    found: dict[str, list[tuple[float, float]]] = {"ours": [], "raw": []}
    for pair in range(count + 1):
        for name in sorted(found, reverse=bool(pair % 2)):
            attempt = bench.attempt(bench.key(), _CODE)
            if name == "ours":
                times = await timed(bench, attempt, adapter.submit)
                await adapter.wait(JobHandle(attempt.key, ""), _LIMIT_S)
            else:
                times = await timed(bench, attempt, way.start)
            if pair:
                found[name].append(times)
        await bench.settle()
    await way.clear()
    await adapter.aclose()
    return row(kind, called, found)


def row(kind: str, called: str, found: dict[str, list[tuple[float, float]]]) -> str:
    """Return the medians as a row of the table."""
    cells = [kind, called]
    for part in (0, 1):
        ours, raw = ([times[part] for times in found[name]] for name in ("ours", "raw"))
        ratios = [a / b for a, b in zip(ours, raw, strict=True)]
        cells += [f"{statistics.median(each):.0f}" for each in (ours, raw)]
        cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    return f"| {' | '.join(cells)} |"


async def one(kind: str, count: int) -> str:
    """Bring one backend up, measure it, and end it."""
    with tempfile.TemporaryDirectory(prefix="fab") as folder, BENCHES[kind](Path(folder)) as bench:
        try:
            return await measure(bench, kind, count)
        finally:
            await bench.aclose()


def main() -> None:
    """Measure what was asked for, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "kinds", nargs="*", metavar="KIND", help=f"{', '.join(WAYS)}; all of them by default"
    )
    parser.add_argument("--count", type=int, default=10, help="pairs for each")
    asked = parser.parse_args()
    if unknown := set(asked.kinds) - set(WAYS):
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    load = os.getloadavg()[0]
    rows = [asyncio.run(one(kind, asked.count)) for kind in asked.kinds or WAYS]
    print(
        f"{asked.count} pairs each; load average {load:.1f} before, {os.getloadavg()[0]:.1f} after"
    )
    print("| backend | raw client | taken, ms | raw, ms | ratio | started, ms | raw, ms | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    print(*rows, sep="\n")


if __name__ == "__main__":
    main()
