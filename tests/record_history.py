"""Record the histories that `test_replay` replays: ``python -m tests.record_history``.

Run it when a new shape of a workflow is released, and keep the older files.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temporal_fabric import Fabric, FabricError, __version__
from temporal_fabric.connection import connect
from temporal_fabric.testing.environment import FabricEnvironment
from tests.bodies import shell

if TYPE_CHECKING:
    from temporal_fabric.handle import ExperimentHandle

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "tests" / "histories"


def _shapes() -> dict[str, dict[str, Any]]:
    retry = {"max_attempts": 2, "initial_interval_s": 0.2}
    return {
        "succeeded": shell("echo hello > $FABRIC_OUTPUT_DIR/x"),
        "failed-after-retry": shell("exit 3", retry=retry),
        "cancelled": shell("sleep 60", limits={"grace_s": 0.5}),
        "refused": shell("true", backends=["elsewhere"]),
        "told-by-result": shell("true"),
    }


async def record(folder: Path) -> list[Path]:
    """Run one experiment of each shape and write its history; return the files."""
    home = Path(tempfile.mkdtemp(prefix="fab"))
    environment = FabricEnvironment(home, {"FABRIC_HOST_ID": "host"})
    environment.start_server()
    environment.start_worker()
    written: list[Path] = []
    try:
        client = await connect(environment.settings, address=environment.address)
        fabric = Fabric(client, environment.settings)
        for shape, body in _shapes().items():
            handle = await fabric.submit(body | {"id": shape}, check=False)
            await _end(handle, cancel=shape == "cancelled")
            history = await handle.workflow.fetch_history()
            path = folder / f"{__version__}-{shape}.json"
            path.write_text(_portable(history.to_json()))
            written.append(path)
    finally:
        await environment.close()
        shutil.rmtree(home, ignore_errors=True)
    return written


def _portable(text: str) -> str:
    """Take the machine's own folders out of stack traces."""
    for folder, name in ((ROOT, "/checkout"), (Path(sys.prefix), "/python")):
        text = text.replace(str(folder), name)
    return text


async def _end(handle: ExperimentHandle, *, cancel: bool) -> None:
    while cancel and (await handle.status()).state != "RUNNING":
        await asyncio.sleep(0.1)
    if cancel:
        await handle.cancel()
    try:
        await handle.result()
    except FabricError as exc:
        print(type(exc).__name__, exc)


if __name__ == "__main__":
    for file in asyncio.run(record(FOLDER)):
        print(file)
