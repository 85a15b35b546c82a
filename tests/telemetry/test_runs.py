"""Telemetry of whole runs: live, over a worker's death, in the capsule and on the command line."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from temporal_fabric import Capsule, Fabric
from temporal_fabric.connection import connect
from temporal_fabric.workplace import Workplace
from tests.bodies import process

if TYPE_CHECKING:
    from temporal_fabric.testing.environment import FabricEnvironment

TASK = Path(__file__).parents[2] / "src" / "temporal_fabric" / "task.py"

# The helper is copied, not imported: the payload's interpreter knows nothing of us.
PAYLOAD = f"""
import importlib.util, time
spec = importlib.util.spec_from_file_location("task", {str(TASK)!r})
task = importlib.util.module_from_spec(spec)
spec.loader.exec_module(task)
task.progress(0.0, stage="warm-up")
for step in range(1, STEPS + 1):
    task.emit(step=step, loss=1 / step)
    print(f'::fabric:: {{{{"step": {{step}}, "printed": {{step}}}}}}', flush=True)
    task.progress(step / STEPS, stage="fit")
    time.sleep(0.1)
task.event("done", what="everything")
"""


def _body(steps: int, **more: Any) -> dict[str, Any]:
    code = PAYLOAD.replace("STEPS", str(steps))
    return process(sys.executable, "-S", "-E", "-c", code, **more)


def _steps(path: str, name: str) -> list[int]:
    sql = "SELECT step FROM read_parquet(?) WHERE name = ?"
    return [int(row[0]) for row in duckdb.execute(sql, [path, name]).fetchall()]


async def _fabric(env: FabricEnvironment) -> Fabric:
    return Fabric(await connect(env.settings, address=env.address), env.settings)


async def test_each_step_once_over_a_workers_death(own_environment: FabricEnvironment) -> None:
    """Read while it runs by plain DuckDB, the worker killed, every step is there once."""
    env = own_environment
    env.start_worker()
    fabric = await _fabric(env)
    handle = await fabric.submit(_body(120))
    folder = Workplace.of(env.settings.runs, handle.tenant, handle.id, 1).folder
    segments = f"{folder}/telemetry-*.parquet"
    async with asyncio.timeout(30):
        while len(list(folder.glob("telemetry-*.parquet"))) < 2:
            await asyncio.sleep(0.1)

    live = _steps(segments, "loss")
    env.kill_worker()
    env.start_worker()
    async with asyncio.timeout(40):
        while not (status := await handle.status(detail=False)).live.get("eta_s"):
            await asyncio.sleep(0.2)
    result = await handle.result()

    telemetry = Capsule.open(result.capsule).folder / "telemetry.parquet"
    for name in ("loss", "printed"):
        assert _steps(str(telemetry), name) == list(range(1, 121))
    assert live == list(range(1, len(live) + 1))
    assert 0 < len(live) < 120
    assert status.live["stage"] == "fit"
    assert 0 < status.live["progress"] <= 1
    assert status.live["metrics"].keys() == {"loss", "printed"}


async def test_capsules_on_the_command_line(own_environment: FabricEnvironment) -> None:
    """Listed, shown, verified and asked in SQL, by id, URI and folder, without a server."""
    env = own_environment
    env.start_worker()
    fabric = await _fabric(env)
    handle = await fabric.submit(_body(3, id="first"))
    result = await handle.result()
    await (await fabric.submit(_body(2, id="second"))).result()
    folder = Capsule.open(result.capsule).folder

    async def cli(*args: str) -> Any:
        done = await asyncio.to_thread(env.cli, "capsule", *args, "-o", "json")
        return json.loads(done.stdout)

    count = "SELECT request_id, count(*) AS n FROM telemetry WHERE name = 'loss' GROUP BY ALL"
    story = "SELECT event, detail FROM events WHERE event <> 'state' ORDER BY seq"
    listed, shown = await cli("ls"), await cli("show", "first")
    both, one = await cli("query", f"{count} ORDER BY ALL"), await cli("query", count, "last")
    told = await cli("query", story, result.capsule)
    written = await asyncio.to_thread(env.cli, "capsule", "query", "COPY results TO 'x.csv'")
    whole = await cli("verify", str(folder))
    (folder / "request.json").write_text("{}")
    broken = await asyncio.to_thread(env.cli, "capsule", "verify", "first")

    assert [row["request_id"] for row in listed] == ["second", "first"]
    assert "telemetry.parquet" in {entry["path"] for entry in shown["files"]}
    assert both == [{"request_id": "first", "n": 3}, {"request_id": "second", "n": 2}]
    assert one == [{"request_id": "second", "n": 2}]
    assert [row["event"] for row in told] == ["stage", "stage", "event"]
    assert json.loads(told[-1]["detail"]) == {"event": "done", "what": "everything"}
    assert (written.returncode, "one SELECT" in written.stderr) == (1, True)
    assert whole["ok"]
    assert (broken.returncode, "request.json" in broken.stderr) == (1, True)
