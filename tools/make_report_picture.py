"""Run an experiment through a pause and a kill, and take the picture of its report.

``python tools/make_report_picture.py``: a minute, into ``docs/images/report.png``. Nothing in
the picture is made up: a server, a worker and a payload run on this machine, the payload is killed
once, and the page is what ``capsule report`` writes.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playwright.sync_api import sync_playwright

from temporal_fabric import Capsule, Fabric
from temporal_fabric.capsule.report import report
from temporal_fabric.connection import connect
from temporal_fabric.testing.environment import FabricEnvironment

if TYPE_CHECKING:
    from temporal_fabric.handle import ExperimentHandle

HERE = Path(__file__).parent
TARGET = HERE.parent / "docs" / "images" / "report.png"
_WIDTH, _HEIGHT = 1100, 1575
_BODY: dict[str, Any] = {
    "id": "digits-17",
    "name": "Handwritten digits by softmax regression",
    "tags": ["digits", "sweep-3"],
    "priority": 7,
    "payload": {
        "process": {
            "command": ["python", "train_digits.py"],
            "env": {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}"},
            "outputs": [{"source_path": "model.npz"}],
        }
    },
    "retry": {"max_attempts": 2, "initial_interval_s": 3, "on": ["SIGNAL"]},
}


async def _step(handle: ExperimentHandle, least: int) -> None:
    """Wait until the payload has made so many steps."""
    async with asyncio.timeout(120):
        while (await handle.status()).live.get("step", 0) < least:  # noqa: ASYNC110 - it is polled
            await asyncio.sleep(0.2)


async def _ran() -> str:
    """Return the report of an experiment that was killed once and paused once."""
    async with FabricEnvironment.fresh({"FABRIC_HOST_ID": "lab-pc"}) as found:
        fabric = Fabric(await connect(found.settings, address=found.address), found.settings)
        folder = found.home / "digits"
        folder.mkdir()
        shutil.copy(HERE / "train_digits.py", folder)
        handle = await fabric.submit(_BODY | {"workdir": str(folder)})
        await _step(handle, 700)
        pid = int((await handle.status()).native_id.split()[1])
        os.kill(pid, signal.SIGKILL)
        await _step(handle, 1400)
        await handle.pause()
        await asyncio.sleep(4)
        await handle.resume()
        result = await handle.result()
        return report(Capsule.open(result.capsule))


def main() -> None:
    """Run it, and write the picture."""
    page = asyncio.run(_ran())
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=["--no-sandbox"]
        )
        view = browser.new_page(viewport={"width": _WIDTH, "height": _HEIGHT})
        view.set_content(page)
        view.screenshot(path=TARGET)
        browser.close()


if __name__ == "__main__":
    main()
