"""Record the histories that `test_replay` replays: ``python -m tests.record_history SHAPE...``.

Run it for the shapes that a change adds, and keep the older files: they are what replays.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temporal_fabric import Fabric, FabricError, __version__, names
from temporal_fabric.connection import connect
from temporal_fabric.failpoints import FailPoint
from temporal_fabric.testing.environment import FabricEnvironment
from temporal_fabric.testing.faults import FailPoints
from tests.bodies import shell
from tests.flow_bodies import SMALL, endless, flow

if TYPE_CHECKING:
    from temporalio.client import WorkflowHandle

    from temporal_fabric.handle import ExperimentHandle

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "tests" / "histories"
_ROLLBACK = [
    {"name": "first", "command": ["true"]},
    {"name": "second", "command": ["false"], "max_attempts": 2, "on_failure": "hold"},
]
_GOES_AT = {
    "revoked": FailPoint.ATTEMPT_TAKEN,
    "sealed-without-host": FailPoint.SEAL_TAKEN,
    "held": None,
    "held-and-cancelled": None,
}
"""Where the host of a shape falls silent; None for as soon as the payload runs."""
NOBODY = "https://nobody.example/hook"


def _shapes() -> dict[str, dict[str, Any]]:
    retry = {"max_attempts": 2, "initial_interval_s": 0.2}
    resources = [{"type": "memory", "size_gb": 1}]
    lost = {"retry": {"lost_after": 1, "initial_interval_s": 0.2}}
    needs = {"requirements": {"type": "computation", "resources": resources}}
    return {
        "succeeded": shell("echo hello > $FABRIC_OUTPUT_DIR/x"),
        "failed-after-retry": shell("exit 3", retry=retry),
        "cancelled": shell("sleep 60", limits={"grace_s": 0.5}),
        "refused": shell("true", backends=["elsewhere"]),
        "told-by-result": shell("true"),
        "paused": shell("sleep 5"),
        "overdue": shell("sleep 60", deadline=4, limits={"grace_s": 0.5}),
        "notified": shell("true", notify=[{"on": ["RUNNING", "ended"], "url": NOBODY}]),
        "rolled-back": shell("exit 3", rollback=_ROLLBACK),
        "revoked": shell("true", **lost),
        "held": shell("[ $FABRIC_EPOCH = 2 ] || sleep 60", **lost),
        "held-and-cancelled": shell("sleep 60", **lost),
        "sealed-without-host": shell("echo hello > $FABRIC_OUTPUT_DIR/x", **lost),
        "flow": flow(SMALL),
        "flow-stopped": flow(endless(100_000)),
        "denied": shell("exit 3", retry=retry | {"on": {"EXIT_CODE": {"memory": "x100"}}}) | needs,
    }


async def record(folder: Path, wanted: list[str]) -> list[Path]:
    """Run one experiment of each wanted shape and write its history; return the files."""
    home = Path(tempfile.mkdtemp(prefix="fab"))
    points = FailPoints(home / "points")
    environment = FabricEnvironment(home, {"FABRIC_HOST_ID": "host"} | points.env)
    (home / "fabric.toml").write_text('[backends.local]\nkind = "local"\npatience_s = 1\n')
    environment.start_server()
    environment.start_worker()
    written: list[Path] = []
    try:
        client = await connect(environment.settings, address=environment.address)
        fabric = Fabric(client, environment.settings)
        for shape, body in _shapes().items():
            if shape not in wanted:
                continue
            if point := _GOES_AT.get(shape):
                points.arm(point)
            handle = await fabric.submit(body | {"id": shape}, check=False)
            if shape in _GOES_AT:
                await _fall_silent(environment, points, handle, shape)
            await _steer(handle, shape)
            await _end(handle)
            written.append(await _write(handle.workflow, folder, shape))
            if shape.startswith("flow"):
                steps = client.get_workflow_handle(names.flow_id("default", shape, 1))
                written.append(await _write(steps, folder, f"{shape}-steps"))
    finally:
        await environment.close()
        shutil.rmtree(home, ignore_errors=True)
    return written


async def _write(workflow: WorkflowHandle[Any, Any], folder: Path, shape: str) -> Path:
    history = await workflow.fetch_history()
    path = folder / f"{__version__}-{shape}.json"
    path.write_text(_portable(history.to_json()))
    return path


def _portable(text: str) -> str:
    """Take the machine's own folders out of stack traces."""
    for folder, name in ((ROOT, "/checkout"), (Path(sys.prefix), "/python")):
        text = text.replace(str(folder), name)
    return text


async def _reaches(handle: ExperimentHandle, state: str) -> None:
    while (await handle.status()).state != state:
        await asyncio.sleep(0.1)


async def _fall_silent(
    environment: FabricEnvironment, points: FailPoints, handle: ExperimentHandle, shape: str
) -> None:
    """Kill the experiment's host, and let another one of the pool take over."""
    if point := _GOES_AT[shape]:
        await points.reached(point)
    else:
        await _reaches(handle, "RUNNING")
    environment.kill_worker()
    other = environment.home / "other"
    other.mkdir(exist_ok=True)
    shutil.copy(environment.home / "fabric.toml", other)
    environment.start_worker(FABRIC_HOME=str(other), FABRIC_HOST_ID="other")


async def _steer(handle: ExperimentHandle, shape: str) -> None:
    """Do to a running experiment what its shape is about."""
    if shape == "cancelled":
        await _reaches(handle, "RUNNING")
        await handle.cancel()
    elif shape in {"paused", "flow-stopped"}:
        await _reaches(handle, "RUNNING")
        await handle.pause()
        await handle.resume()
        if shape == "flow-stopped":
            await handle.cancel()
    elif shape in {"rolled-back", "sealed-without-host"}:
        await _reaches(handle, "HELD")
        await handle.resolve("abort", by="ada")
    elif shape.startswith("held"):
        await _reaches(handle, "HELD")
        if shape == "held-and-cancelled":
            await handle.cancel()
            while (await handle.status()).question.get("number") != 2:
                await asyncio.sleep(0.1)
        await handle.resolve("not-done", by="ada", note="I looked")


async def _end(handle: ExperimentHandle) -> None:
    try:
        await handle.result()
    except FabricError as exc:
        print(type(exc).__name__, exc)


if __name__ == "__main__":
    for file in asyncio.run(record(FOLDER, sys.argv[1:] or list(_shapes()))):
        print(file)
