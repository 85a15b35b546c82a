"""A death at every named fail point: one end, no effect twice, nothing left, a whole capsule.

A cell is one fail point and one victim. Each cell runs an experiment of its own, stops at the
point, kills the victim, brings it back, and then looks at what another process has noted, at
the processes of this machine, and at the capsule.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from temporalio.service import RPCError

from temporal_fabric import Capsule, ExperimentCanceled, ExperimentFailed, Fabric
from temporal_fabric.connection import connect
from temporal_fabric.failpoints import FailPoint
from temporal_fabric.launcher.sweep import read_info
from temporal_fabric.testing.environment import FabricEnvironment
from temporal_fabric.testing.evidence import EvidenceLedger
from temporal_fabric.testing.faults import FailPoints
from tests.bodies import REPORTER, python

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from temporal_fabric.handle import ExperimentHandle

ROOT = Path(__file__).parents[1]
VICTIMS = ("worker", "server", "launcher", "payload")
ON_DEVICES = {FailPoint.LAB_INTENDED, FailPoint.LAB_SENT, FailPoint.LAB_RECORDED}
ELSEWHERE = {FailPoint.SETTLE_REVOKED, *ON_DEVICES}
"""Only a host that falls silent leads there, or a device: `test_silent_backend` and tests/lab kill
a worker at them."""

FLOWS = {point for point in FailPoint if point.startswith("flow.")}
"""Only flows go there: see `test_flow_deaths`."""

POINTS = [point for point in FailPoint if point not in ELSEWHERE | FLOWS]
STEPS = 5
DATA = "done"
_LANES = 3
_END_S = 90.0

_REPORT = REPORTER[-1]
PAYLOAD = f"""
import time
{_REPORT.replace("sys.argv[1]", "'start'")}
for step in range(1, {STEPS + 1}):
    print('::fabric:: ' + json.dumps({{'step': step, 'loss': 1.0 / step}}), flush=True)
    time.sleep(0.35)
given = open(os.environ['FABRIC_INPUT_DIR'] + '/in.txt').read()
open(os.environ['FABRIC_OUTPUT_DIR'] + '/out.txt', 'w').write(given)
{_REPORT.replace("sys.argv[1]", "'end'")}
"""


@dataclass(frozen=True)
class Cell:
    """One fail point and who dies there."""

    point: FailPoint
    victim: str

    def __str__(self) -> str:
        return f"{self.point}-{self.victim}"

    @property
    def runs_there(self) -> bool:
        """Whether the payload runs, or may have run, when the point is reached."""
        first, last = FailPoint.LAUNCHER_RELEASED, FailPoint.RECORDER_SEALED
        running = POINTS.index(first) <= POINTS.index(self.point) <= POINTS.index(last)
        return running or self.point is FailPoint.ABSENCE_ASKED

    @property
    def cancels(self) -> bool:
        """Whether only an experiment that is cancelled comes here."""
        return self.point.startswith("absence.")


def _cells() -> list[Cell]:
    every = [Cell(point, victim) for point in POINTS for victim in VICTIMS]
    every = [cell for cell in every if cell.victim != "payload" or cell.runs_there]
    if os.environ.get("FABRIC_CAMPAIGN"):
        return every
    # Every point once; who dies there is drawn with a fixed seed.
    chance = random.Random(20261121)
    return [chance.choice([c for c in every if c.point is point]) for point in POINTS]


def _expected(cell: Cell) -> set[str]:
    """Return how the experiment may end."""
    if cell.cancels:
        return {"CANCELED"}
    if cell.victim == "payload":
        return {"FAILED SIGNAL"}
    if cell.victim == "launcher":
        at = POINTS.index(cell.point)
        unclear = POINTS.index(FailPoint.LAUNCHER_RECORDED), POINTS.index(FailPoint.LAUNCHER_ENDED)
        return {"FAILED LOST"} if unclear[0] <= at <= unclear[1] else {"SUCCEEDED"}
    return {"SUCCEEDED"}


class _Lane:
    """An environment in which cells are tried one after the other."""

    def __init__(self, env: FabricEnvironment, points: FailPoints, ledger: EvidenceLedger) -> None:
        self._env, self._points, self._ledger = env, points, ledger

    async def attempt(self, cell: Cell) -> list[str]:
        """Try one cell; return what is wrong."""
        body = self._body()
        client = await connect(self._env.settings, address=self._env.address)
        fabric = Fabric(client, self._env.settings)
        if not cell.cancels:
            self._points.arm(cell.point)
        handle = await fabric.submit(body)
        if cell.cancels:
            await self._started(body["id"])
            self._points.arm(cell.point)
            await handle.cancel()
        try:
            await self._points.reached(cell.point)
        except TimeoutError:
            await handle.workflow.terminate()
            return ["the point was never reached"]
        await self._kill(cell, body["id"])
        self._points.let_go(cell.point)
        await self._bring_back(cell)
        return await self._judge(cell, handle)

    def _body(self) -> dict[str, Any]:
        source = self._env.home / "in.txt"
        source.write_text(DATA)
        body = python(
            PAYLOAD,
            env={"EVIDENCE": str(self._ledger.socket)},
            inputs=[{"source_uri": f"file://localhost{source}", "mount_path": "in.txt"}],
            limits={"grace_s": 1},
        )
        target = self._target(body["id"]) / "out.txt"
        body["payload"]["process"]["outputs"] = [
            {"source_path": "out.txt", "target_uri": target.as_uri()}
        ]
        return body

    def _target(self, request_id: str) -> Path:
        return self._env.home / "targets" / request_id

    async def _started(self, request_id: str) -> dict[str, Any]:
        async with asyncio.timeout(30):
            while not (rows := self._ledger.lines(id=request_id, event="start")):
                await asyncio.sleep(0.02)
        return rows[0]

    async def _kill(self, cell: Cell, request_id: str) -> None:
        if cell.victim == "worker":
            await asyncio.to_thread(self._env.kill_worker)
        elif cell.victim == "server":
            assert self._env.server is not None
            await asyncio.to_thread(self._env.server.kill)
        elif cell.victim == "launcher":
            os.kill(int(read_info(self._env.settings.launcher)["pid"]), signal.SIGKILL)
        else:
            os.kill((await self._started(request_id))["pid"], signal.SIGKILL)

    async def _bring_back(self, cell: Cell) -> None:
        if cell.victim == "worker":
            await asyncio.to_thread(self._env.start_worker)
        elif cell.victim == "server":
            await asyncio.to_thread(self._env.start_server)

    async def _judge(self, cell: Cell, handle: ExperimentHandle) -> list[str]:
        wrong: list[str] = []
        try:
            async with asyncio.timeout(_END_S):
                end, capsule = await _ended(handle)
        except TimeoutError:
            return ["it has no end"]
        if end not in _expected(cell):
            wrong.append(f"ended {end}, expected {_expected(cell)}")
        lines = Counter((row["event"], row["epoch"]) for row in self._ledger.lines(id=handle.id))
        wrong += [f"{key} {count} times" for key, count in lines.items() if count > 1]
        if end == "SUCCEEDED" and lines.total() != 2:
            wrong.append(f"not one start and one end: {dict(lines)}")
        wrong += [f"capsule: {problem}" for problem in Capsule.open(capsule).verify()]
        wrong += _steps_wrong(Capsule.open(capsule), whole=end == "SUCCEEDED")
        wrong += _target_wrong(self._target(handle.id), whole=end == "SUCCEEDED")
        wrong += await _left_over(handle.id)
        return wrong


async def _ended(handle: ExperimentHandle) -> tuple[str, str]:
    try:
        result = await handle.result()
    except ExperimentCanceled as exc:
        return ("CANCELED", exc.result["capsule"])
    except ExperimentFailed as exc:
        return (f"FAILED {exc.reason}", exc.result["capsule"])
    return (result.state, result.capsule)


def _steps_wrong(capsule: Capsule, *, whole: bool) -> list[str]:
    """Say where telemetry repeats a step, leaves one out, or misses the end of a whole run."""
    import duckdb  # noqa: PLC0415 - loading it takes longer than most tests

    path = capsule.folder / "telemetry.parquet"
    if not path.exists():
        return ["no telemetry"] if whole else []
    with duckdb.connect() as database:
        rows = database.execute(
            f"SELECT step FROM '{path}' WHERE name = 'loss' ORDER BY seq"  # noqa: S608 - our path
        ).fetchall()
    steps = [step for (step,) in rows]
    if steps != [*range(1, len(steps) + 1)] or (whole and len(steps) != STEPS):
        return [f"steps {steps}"]
    return []


def _target_wrong(folder: Path, *, whole: bool) -> list[str]:
    """Say where anything but the whole output of a run that succeeded was stored."""
    found = {path.name: path.read_text() for path in folder.glob("*")}
    return [] if found == ({"out.txt": DATA} if whole else {}) else [f"stored {found}"]


async def _left_over(request_id: str) -> list[str]:
    """Return the processes of an experiment that has ended, once they had time to go."""
    mark = f"FABRIC_REQUEST_ID={request_id}\0".encode()
    alive: list[str] = []
    for _ in range(50):
        alive = await asyncio.to_thread(_marked, mark)
        if not alive:
            return []
        await asyncio.sleep(0.2)
    return alive


def _marked(mark: bytes) -> list[str]:
    alive: list[str] = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (entry / "environ").read_bytes():
                alive.append(f"still runs: {(entry / 'cmdline').read_bytes()[:80]!r}")
    return alive


async def _warm(env: FabricEnvironment) -> None:
    """Run something, so that there is a launcher to kill at the very first point."""
    client = await connect(env.settings, address=env.address)
    await (await Fabric(client, env.settings).submit(python("pass"))).result()


CELLS = _cells()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def verdicts() -> AsyncIterator[dict[Cell, list[str]]]:
    """Every cell, tried in a few environments side by side: most of the time is waiting."""
    found: dict[Cell, list[str]] = {}
    waiting = list(reversed(CELLS))

    async def lane() -> None:
        async with FabricEnvironment.fresh(worker=False) as env:
            points = FailPoints(env.home / "points")
            env.env |= points.env
            ledger = EvidenceLedger(env.home)
            try:
                await asyncio.to_thread(env.start_worker)
                await _warm(env)
                while waiting:
                    cell = waiting.pop()
                    try:
                        found[cell] = await _Lane(env, points, ledger).attempt(cell)
                    except (OSError, RuntimeError, RPCError) as exc:
                        found[cell] = [repr(exc)]
            finally:
                ledger.close()

    await asyncio.gather(*(lane() for _ in range(_LANES)))
    yield found


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("cell", CELLS, ids=str)
async def test_a_death_here_is_survived(verdicts: dict[Cell, list[str]], cell: Cell) -> None:
    """One end that is right, each effect at most once, nothing left, a capsule that verifies."""
    assert verdicts[cell] == []


def test_every_fail_point_is_in_the_code_once() -> None:
    """A point that no code reaches, or two places share, would be tested in name only."""
    # Read as text: CPython 3.11 may fail to parse a tree while another thread does the same.
    calls = [
        call
        for folder in ("src/temporal_fabric", "activities", "adapters", "workflows")
        for path in (ROOT / folder).rglob("*.py")
        for call in re.findall(r"\breach\(([^()]*)\)", path.read_text())
    ]
    reached = [name for call in calls for name in re.findall(r"FailPoint\.\w+", call)]

    assert sorted(reached) == sorted(f"FailPoint.{point.name}" for point in FailPoint)
