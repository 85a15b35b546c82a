"""Many small flows at once: durable steps beside each other, and chunks as one program.

First durable runs through the process of a worker, all at once and one after the other. Then
chunks of 8 flows as one program under `jax.vmap`, beside one after the other; how many of them end
in the bits that they have alone, and in a program of 4 or 2 in those that they have in one of 8:
``python benchmarks/bench_flows_beside.py [PAIRS]``
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from temporal_fabric.flows import compile_flow
from temporal_fabric.flows.chunk import Job, run_chunks
from temporal_fabric.flows.controller import advance
from temporal_fabric.flows.controller_state import ControllerState, Policy
from temporal_fabric.flows.engine import FlowEngine
from temporal_fabric.flows.reading import read_spec
from temporal_fabric.flows.reports import report_from_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from temporal_fabric.flows.chunk import Chunk

FLOWS, ITERATIONS, EVERY = 8, 100, 10

BLUR = {"type": "separable_convolution", "sigma": 0.7}
WAVELET = {"type": "wavelet_l1", "wavelet": "haar", "levels": 3, "weight": 0.05}
KINDS: dict[str, tuple[list[int], str, dict[str, Any]]] = {
    "64 unknowns, haar, accelerated": ([64], "accelerated", WAVELET),
    "32 x 32, db4, accelerated": (
        [32, 32],
        "accelerated",
        {**WAVELET, "wavelet": "db4", "levels": 2},
    ),
    "32 x 32, tv, primal-dual": ([32, 32], "primal_dual", {"type": "tv", "weight": 0.01}),
}


def spec(kind: str, seed: int) -> dict[str, Any]:
    """Return a flow that uses all its iterations."""
    shape, family, penalty = KINDS[kind]
    return {
        "data": {
            "truth": {"type": "normal", "shape": shape, "seed": seed},
            "seen": {"type": "observed", "source": "truth", "operator": "blur", "noise": 0.05},
        },
        "operators": {"blur": BLUR},
        "state": {"x": {"shape": shape, "initial": "seen"}},
        "terms": [
            {"type": "quadratic", "operator": "blur", "target": "seen"},
            {**penalty, "weight": penalty["weight"] * (seed + 1)},
        ],
        "flow": {"family": family},
        "certification": {"profile": "convex", "tolerances": {"gap": 1e-300}},
        "budget": {"iterations": 1_000},
        "sample_every": EVERY,
    }


async def durable(engine: FlowEngine, folder: Path, seed: int) -> None:
    """Run a flow as the activities do, without a server."""
    begin = {"spec": spec(next(iter(KINDS)), seed), "data": {}, "run_id": str(seed)}
    more = {"epoch": 1, "wall_s": None, "redact": False}
    standing = await engine.ask("open", folder, begin | more)
    policy, state = standing["policy"], ControllerState.from_json(standing["state"])
    good, number = standing["good"], standing["number"]
    while state.finished is None:
        number += 1
        asked = {"policy": policy, "state": state.as_json(), "good": good, "number": number}
        found = await engine.ask("step", folder, asked | {"epoch": 1})
        good = found["good"] or good
        state, _ = advance(Policy.from_json(policy), state, report_from_json(found["report"]))


async def durable_rows(pairs: int, folder: Path) -> None:
    """Show how much faster several durable runs are at once than one after the other."""
    engine = FlowEngine(folder / "jax", folder / "log")
    await durable(engine, folder / "first", 0)
    ratios: list[float] = []
    for pair in range(pairs):
        places = [folder / f"{pair}-{number}" for number in range(2 * FLOWS)]
        began = time.perf_counter()
        for seed, place in enumerate(places[:FLOWS]):
            await durable(engine, place, seed)
        between = time.perf_counter()
        await asyncio.gather(*(durable(engine, p, seed) for seed, p in enumerate(places[FLOWS:])))
        ratios.append((between - began) / (time.perf_counter() - between))
    await engine.aclose()
    told = (f"{x:.3g}" for x in (statistics.median(ratios), min(ratios), max(ratios)))
    print(f"| {FLOWS} durable runs at once | in turn |", " | ".join(told), "|", flush=True)


def program_row(pairs: int, kind: str) -> None:
    """Show what one program of all chunks gains, and whose bits it keeps."""
    flows = [compile_flow(read_spec(spec(kind, seed))) for seed in range(FLOWS)]
    starts = [one.scheme.init(one.problem, one.start) for one in flows]
    jobs = [
        Job(one.scheme, one.problem, start, one.observables)
        for one, start in zip(flows, starts, strict=True)
    ]

    def in_turn() -> list[Chunk]:
        return [job.run(ITERATIONS, EVERY) for job in jobs]

    def at_once(count: int = FLOWS) -> list[Chunk]:
        return run_chunks(jobs[:count], iterations=ITERATIONS, sample_every=EVERY)

    alone, whole = in_turn(), at_once()
    ratios = [_seconds(in_turn) / _seconds(at_once) for _ in range(pairs)]
    cells = [f"{x:.3g}" for x in (statistics.median(ratios), min(ratios), max(ratios))]
    cells += [_same(whole, alone), _same(at_once(4), whole), _same(at_once(2), whole)]
    print(f"| {kind} | in turn |", " | ".join(cells), "|", flush=True)


def _same(some: Sequence[Chunk], others: Sequence[Chunk]) -> str:
    """Return how many of the first have the bits of the others."""
    pairs = list(zip(some, others, strict=False))
    same = [_bits(one.carry) == _bits(other.carry) for one, other in pairs]
    return f"{sum(same)} of {len(pairs)}"


def _bits(carry: Any) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(carry)]


def _seconds(work: Callable[[], list[Chunk]]) -> float:
    began = time.perf_counter()
    jax.block_until_ready([one.carry for one in work()])
    return time.perf_counter() - began


def main(arguments: list[str]) -> None:
    """Measure all."""
    pairs = int(arguments[0]) if arguments else 7
    print("| what | beside | times faster, median | least | most |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(durable_rows(pairs, Path(name)))
    shown = "times faster, median | least | most | bits as alone | 4 as 8 | 2 as 8"
    print(f"\n| one program of {FLOWS} | beside | {shown} |\n|---|---|---|---|---|---|---|---|")
    for kind in KINDS:
        program_row(pairs, kind)


if __name__ == "__main__":
    main(sys.argv[1:])
