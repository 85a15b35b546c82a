"""Running the demo: server, worker, experiment, a SIGKILL, another worker, a summary.

Everything is started by this process and ended by it; the payload belongs to the launcher,
which is told to leave at the end.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temporal_fabric import names
from temporal_fabric.capsule.reading import Capsule
from temporal_fabric.client import Fabric
from temporal_fabric.connection import connect
from temporal_fabric.console import say, state_line, table
from temporal_fabric.demo.companions import best_epoch, deblurring, photograph
from temporal_fabric.devserver import DevServer
from temporal_fabric.errors import BackendUnknown
from temporal_fabric.launcher import LauncherClient
from temporal_fabric.logs import read_logs
from temporal_fabric.sparkline import sparkline

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from temporal_fabric.config import Settings
    from temporal_fabric.handle import ExperimentHandle
    from temporal_fabric.outcomes import ExperimentResult

EPOCHS = 10
_STOP_S = 20.0
_CURVE = """
  SELECT step, any_value(value) FILTER (name = 'loss') AS loss,
               any_value(value) FILTER (name = 'accuracy') AS accuracy
  FROM '{path}' GROUP BY epoch, seq, step ORDER BY step"""


@dataclass(slots=True)
class _Story:
    """What happens, as it happens."""

    started: float = field(default_factory=time.monotonic)

    def tell(self, what: str, detail: str) -> None:
        """Say one thing with the time since the start."""
        say(f"[{time.monotonic() - self.started:5.1f} s] {what}: {detail}", colour="magenta")


async def run_demo(settings: Settings, *, seed: int | None = None) -> int:
    """Run the demo below ``settings.home``; return the exit code."""
    home = settings.home / "demo"
    chosen = random.SystemRandom().randrange(10**6) if seed is None else seed
    epoch = random.Random(chosen).randint(2, EPOCHS - 3)  # noqa: S311 - a show, not a secret
    story = _Story()
    say("temporal-fabric demo: four experiments, and a worker killed in the middle of them")
    if settings.store != settings.home.as_uri():
        say(f"the store {settings.store} is not used: a demo keeps its capsules below {home}")
    server = DevServer.start(
        home,
        durable=False,
        port=0,
        progress=say,
        die_with_parent=True,
        search_attributes=names.SEARCH_ATTRIBUTES,
    )
    story.tell("server", f"{server.info.address}, web UI {server.info.ui_url}")
    demo = _Demo(_settings_below(settings, home), server.info.address, story)
    try:
        return await demo.play(kill_at=epoch)
    finally:
        await demo.leave()
        server.stop()


def _settings_below(settings: Settings, home: Path) -> Settings:
    # For the workers too. It is read with `Capsule.folder`, so the store is a folder.
    os.environ |= {"FABRIC_HOME": str(home), "FABRIC_STORE": home.as_uri()}
    return type(settings)(home=home, store=home.as_uri())


class _Demo:
    def __init__(self, settings: Settings, address: str, story: _Story) -> None:
        self._settings = settings
        self._address = address
        self._story = story
        self._worker: subprocess.Popen[bytes] | None = None

    async def play(self, kill_at: int) -> int:
        """Submit, follow, kill, restart, report."""
        self._start_worker("worker")
        client = await connect(self._settings, address=self._address, quiet=True)
        fabric = Fabric(client, self._settings)
        handle = await fabric.submit(_request())
        self._story.tell("submitted", f"{handle.tenant}/{handle.id}")
        photo = await fabric.submit(photograph())
        chained = await fabric.submit(best_epoch(handle.tenant, handle.id))
        self._story.tell("submitted", f"{photo.id}: a Python function on a photograph")
        self._story.tell("submitted", f"{chained.id}: waits for an output of {handle.id}")
        flow = await self._deblur(fabric)
        states = asyncio.create_task(_show_states(handle))
        pid = await self._train(handle, kill_at)
        await states
        result = await handle.result()
        failed = self._report(result, pid)
        return failed or await self._report_companions(photo, chained, flow)

    async def _deblur(self, fabric: Fabric) -> ExperimentHandle | None:
        body = deblurring()
        if body is None:
            say("no certified flow: it needs JAX; pip install 'temporal-fabric[demo]'")
            return None
        handle = await fabric.submit(body)
        self._story.tell("submitted", f"{handle.id}: a certified flow sharpens a photograph")
        return handle

    async def _report_companions(
        self, photo: ExperimentHandle, chained: ExperimentHandle, flow: ExperimentHandle | None
    ) -> int:
        """Show what the other experiments came to; return the exit code."""
        seen, best = await photo.result(), await chained.result()
        measured = await photo.value()
        outline = Capsule.open(seen.capsule).folder / "artifacts/outline.png"
        log = Capsule.open(best.capsule).folder / f"logs/{best.epoch}/stdout.log"
        found: dict[str, Any] = json.loads(log.read_bytes())
        drawn = "{} x {} pixels, {:.1%} edges".format(*measured["size"], measured["edge_share"])
        rows = [
            (photo.id, seen.state, f"outline.png: {drawn}"),
            (chained.id, best.state, f"best epoch {found['epoch']}: {found['accuracy']:.4f}"),
        ]
        rows += [] if flow is None else [_sharpened(await flow.result())]
        print()
        table("and beside it", ("experiment", "state", "result"), rows)
        return 0 if outline.is_file() else 1

    async def leave(self) -> None:
        """End the worker and the launcher; nothing stays running."""
        if self._worker is not None and self._worker.poll() is None:
            self._worker.terminate()
            await asyncio.to_thread(self._worker.wait, _STOP_S)
        try:
            launcher = await LauncherClient.connect(self._settings.launcher, start=False)
        except BackendUnknown:
            return  # none was started
        for record in await launcher.keys():
            await launcher.terminate(record.key, 0.0)
        await launcher.shutdown()
        await launcher.aclose()

    async def _train(self, handle: ExperimentHandle, kill_at: int) -> str:
        """Copy the payload's output; kill the worker at one epoch and start another."""
        process, rest = "", b""
        async for chunk in read_logs(handle, self._settings, follow=True):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                print(f"    {line.decode()}", flush=True)
                if line.startswith(f"epoch {kill_at:2d}/".encode()):
                    process = (await handle.status()).native_id
                    self._kill_worker(kill_at)
                    self._start_worker("another worker")
        return process

    def _start_worker(self, what: str) -> None:
        log = (self._settings.logs / "worker.log").open("ab")
        self._worker = subprocess.Popen(
            [sys.executable, "-m", "temporal_fabric.cli", "worker", "--address", self._address],
            cwd=self._settings.home,  # not where a project's fabric.toml may lie
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        log.close()
        self._story.tell(what, f"started, pid {self._worker.pid}")

    def _kill_worker(self, epoch: int) -> None:
        if self._worker is None:
            return
        self._worker.send_signal(signal.SIGKILL)
        self._worker.wait()
        self._story.tell("SIGKILL", f"worker pid {self._worker.pid} killed at epoch {epoch}")

    def _report(self, result: ExperimentResult, process: str) -> int:
        attempt = result.attempts[-1]
        capsule = Capsule.open(result.capsule).folder
        log = (capsule / f"logs/{attempt.epoch}/stdout.log").read_text().splitlines()
        epochs = [line.split()[1].partition("/")[0] for line in log if line.startswith("epoch")]
        once = epochs == [str(number) for number in range(1, EPOCHS + 1)]
        same = attempt.native_id == process
        telemetry = capsule / "telemetry.parquet"
        curve = _curve(telemetry)
        whole = [step for step, _, _ in curve] == [*range(1, EPOCHS + 1)]
        rows = [
            ("state", result.state),
            ("payload", f"{attempt.native_id}, {'the same' if same else 'NOT the same'} process"),
            ("epochs", f"{len(epochs)}, {'each once, in order' if once else 'NOT each once'}"),
            ("telemetry", f"{len(curve)} steps, {'no gap, no repeat' if whole else 'NOT whole'}"),
            ("loss, log", _drawn([loss for _, loss, _ in curve], math.log)),
            ("accuracy", _drawn([share for _, _, share in curve])),
            ("capsule", str(capsule)),
        ]
        print()
        table("the one that lost its worker", ("what", "detail"), rows)
        query = _CURVE.format(path=telemetry.name)
        print(f'\ncd {shlex.quote(str(capsule))}\nduckdb -c "{query}"\n')
        shown = [(str(step), f"{loss:.4f}", f"{accuracy:.4f}") for step, loss, accuracy in curve]
        table("", ("epoch", "loss", "acc"), shown)
        return 0 if same and once and whole and result.state == "SUCCEEDED" else 1


def _sharpened(result: ExperimentResult) -> tuple[str, str, str]:
    """Return what the flow came to, as a row."""
    told = json.loads(Capsule.open(result.capsule).read("artifacts/summary.json"))
    near, flow = told["psnr"]["x"], result.attempts[-1].flow
    gap = next(one.value for one in flow.certificates if one.name == "gap") if flow else None
    sharper = f"PSNR {near['start']:.1f} -> {near['result']:.1f} dB"
    proved = f"{told['verdict']}, duality gap {gap:.1e}" if gap else told["verdict"]
    return (result.request_id, result.state, f"{sharper}; {proved}")


def _curve(telemetry: Path) -> list[tuple[int, float, float]]:
    """Ask DuckDB for step, loss and accuracy of every line that was recorded."""
    import duckdb  # noqa: PLC0415 - only the end of the demo needs it

    with duckdb.connect() as database:
        return database.execute(_CURVE.format(path=telemetry)).fetchall()


def _drawn(values: Sequence[float], scale: Callable[[float], float] = float) -> str:
    """Return the values as a curve, and the last of them in figures."""
    last = f"{values[-1]:.4f}" if values else "none"
    return f"{sparkline([scale(value) for value in values])}  {last}"


def _request() -> dict[str, Any]:
    script = Path(__file__).with_name("digits.py")
    process = {
        "command": [sys.executable, str(script)],
        "env": {"EPOCHS": str(EPOCHS)},
        "outputs": [{"source_path": "result.json"}],
    }
    return {
        "name": "digits",
        "tags": ["demo"],
        "requirements": {"type": "computation", "resources": [{"type": "cpu", "cores": 1}]},
        "payload": {"process": process},
    }


async def _show_states(handle: ExperimentHandle) -> None:
    async for event in handle.events():
        if event["event"] == "state":
            state_line(event)
