"""A site for tests: one server, one store, and hosts of one pool that come, die and come back."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from temporal_fabric import Fabric
from temporal_fabric.connection import connect
from temporal_fabric.launcher.sweep import read_info
from temporal_fabric.testing.environment import FabricEnvironment
from temporal_fabric.testing.evidence import EvidenceLedger
from temporal_fabric.testing.faults import FailPoints
from tests.bodies import REPORTER, python
from tests.cable import Cable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from temporal_fabric.handle import ExperimentHandle
    from temporal_fabric.status import ExperimentStatus

_CONFIG = '[backends.local]\nkind = "local"\npatience_s = 1\n'
REPORT = REPORTER[-1]
GATED = f"""
import time
{REPORT.replace("sys.argv[1]", "'start'")}
gate = os.environ['GATE'] + '.' + os.environ['FABRIC_EPOCH']
while not os.path.exists(gate): time.sleep(0.05)
open(os.environ['FABRIC_OUTPUT_DIR'] + '/out.txt', 'w').write(os.environ['FABRIC_EPOCH'])
{REPORT.replace("sys.argv[1]", "'end'")}
"""
"""Reports its start, waits until a test opens its gate, writes its epoch and reports its end."""


class Host:
    """A worker with a home of its own, behind a cable."""

    def __init__(self, site: Site, name: str, cable: Cable, **env: str) -> None:
        home = site.env.home / name
        self._cable = cable
        self._stands_still = False
        self.points = FailPoints(home / "points")
        self.backend = f"local@{name}"
        self.env = FabricEnvironment(
            home,
            {"FABRIC_HOST_ID": name, "FABRIC_SLOTS": "16"} | self.points.env | env,
            site.env.settings.store,
            address=cable.address,
        )
        (home / "fabric.toml").write_text(_CONFIG)

    async def start(self) -> Host:
        """Start the worker, the first time or again."""
        await asyncio.to_thread(self.env.start_worker)
        return self

    async def die(self) -> None:
        """Kill the worker and the launcher, as a power cut does."""
        launcher = read_info(self.env.settings.launcher).get("pid")
        await asyncio.to_thread(self.env.kill_worker)
        if launcher:
            os.kill(int(launcher), signal.SIGKILL)

    async def cut(self) -> None:
        """Cut the cable: worker and payloads go on, and nobody hears of them."""
        await self._cable.cut()

    async def mend(self) -> None:
        """Mend the cable."""
        await self._cable.mend()

    async def stop(self) -> None:
        """Let the worker stand still without its connections, as a suspended machine does."""
        assert self.env.worker is not None
        self._stands_still = True
        self.env.worker.send_signal(signal.SIGSTOP)
        await self.cut()

    async def go_on(self) -> None:
        """Let it go on as if nothing had happened."""
        if self._stands_still and self.env.worker is not None:
            self._stands_still = False
            await self._cable.mend()
            self.env.worker.send_signal(signal.SIGCONT)

    async def close(self) -> None:
        """End everything that was started here."""
        await self.go_on()
        await self._cable.cut()  # or its polls last for a minute
        await self.env.close()

    def keeps(self, request_id: str) -> bool:
        """Whether files of an experiment still lie here."""
        return (self.env.settings.runs / "default" / request_id).exists()


@dataclass
class Site:
    """The server, who watches, and the hosts so far."""

    env: FabricEnvironment
    ledger: EvidenceLedger
    fabric: Fabric
    hosts: dict[str, Host] = field(default_factory=dict[str, Host])

    async def prepare(self, name: str, **env: str) -> Host:
        """Return another host that is not started yet."""
        cable = Cable(self.env.address)
        await cable.mend()
        self.hosts[name] = Host(self, name, cable, **env)
        return self.hosts[name]

    async def host(self, name: str, **env: str) -> Host:
        """Start another host."""
        return await (await self.prepare(name, **env)).start()

    def body(self, name: str, code: str, **more: Any) -> dict[str, Any]:
        """Return a body of some Python that knows the ledger and the experiment's gate."""
        env = {"EVIDENCE": str(self.ledger.socket), "GATE": str(self.env.home / name)}
        settings = {"retry": {"lost_after": 1, "initial_interval_s": 0.1}, "limits": {"grace_s": 1}}
        return python(code, env=env, **(settings | more)) | {"id": name}

    def open_gate(self, name: str, epoch: int) -> None:
        """Let the payload of one epoch end that waits for it."""
        (self.env.home / f"{name}.{epoch}").touch()

    def cli(self, *args: str) -> str:
        """Return what a command prints."""
        done = self.env.cli(*args, "--address", self.env.address)
        return done.stdout + done.stderr

    def ran(self, name: str) -> list[tuple[str, str]]:
        """What another process has seen of an experiment: events with their epochs."""
        return [(row["event"], row["epoch"]) for row in self.ledger.lines(id=name)]


@asynccontextmanager
async def site() -> AsyncGenerator[Site]:
    """Yield a site without a host; everything that was started on it is gone afterwards."""
    async with FabricEnvironment.fresh(worker=False) as env:
        ledger = EvidenceLedger(env.home)
        client = await connect(env.settings, address=env.address)
        found = Site(env, ledger, Fabric(client, env.settings))
        try:
            yield found
        finally:
            for host in found.hosts.values():
                await host.close()
            ledger.close()


async def until(
    handle: ExperimentHandle, wanted: Callable[[ExperimentStatus], bool]
) -> ExperimentStatus:
    """Wait until an experiment stands so; return how it stands."""
    deadline = time.monotonic() + 60
    while not wanted(status := await handle.status()):
        assert time.monotonic() < deadline, status
        await asyncio.sleep(0.2)
    return status


async def held(handle: ExperimentHandle) -> ExperimentStatus:
    """Wait until a person is asked, and a worker tells what."""
    return await until(handle, lambda status: status.state == "HELD" and "text" in status.question)
