"""A whole fabric for a test: a real server, a worker in its own process, a client.

Everything can be killed and started again, which is what tests do with it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from temporal_fabric import names
from temporal_fabric.config import Settings
from temporal_fabric.devserver import DevServer
from temporal_fabric.errors import FabricError
from temporal_fabric.launcher import LauncherClient
from temporal_fabric.testing.launcher_left import clear_groups

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

_START_S = 120.0
_STOP_S = 60.0
"""Guards against what hangs: a machine with ten times as much to do as it can is only slow."""


class FabricEnvironment:
    """A server and a worker under one home.

    Args:
        home: A folder of the test's own; short, because a Unix socket lies below it.
        env: Variables of the worker, beside this process's own.
        store: URI of the store; the home by default.
        address: A server that runs already; one of its own is started without.
    """

    def __init__(
        self,
        home: Path,
        env: Mapping[str, str] | None = None,
        store: str = "",
        *,
        address: str = "",
    ) -> None:
        self._address = address
        self.home = home
        self.settings = Settings(home=home, store=store or home.as_uri())
        self.env = {**os.environ, "FABRIC_HOME": str(home), **(env or {})}
        self.env["FABRIC_STORE"] = self.settings.store
        self.env.pop("TEMPORAL_ADDRESS", None)
        self.server: DevServer | None = None
        self.worker: subprocess.Popen[bytes] | None = None
        self._port = 0

    @classmethod
    @asynccontextmanager
    async def fresh(
        cls,
        env: Mapping[str, str] | None = None,
        *,
        config: str = "",
        worker: bool = True,
        address: str = "",
        store: str = "",
    ) -> AsyncGenerator[FabricEnvironment]:
        """Yield an environment in a home of its own; all of it is gone afterwards.

        Args:
            env: Variables of the worker, beside this process's own.
            config: Text of the home's ``fabric.toml``.
            worker: Whether a worker is started beside the server.
            address: A server that runs already; one of its own is started without.
            store: URI of the store; the home by default.
        """
        home = Path(tempfile.mkdtemp(prefix="fab"))
        found = cls(home, env, store, address=address)
        try:
            if config:
                (home / "fabric.toml").write_text(config)
            if not address:
                found.start_server()
            if worker:
                found.start_worker()
            yield found
        finally:
            await found.close()
            shutil.rmtree(home, ignore_errors=True)

    @property
    def address(self) -> str:
        """The server's address."""
        if self._address:
            return self._address
        if self.server is None:
            raise RuntimeError("the server is not started")
        return self.server.info.address

    def start_server(self, *, durable: bool = False) -> None:
        """Start the server, on the same file and the same port as before.

        Args:
            durable: Survive power loss too, as in production; tests need only outlive kills.
        """
        self.server = DevServer.start(
            self.home,
            durable=durable,
            port=self._port,
            strict_port=bool(self._port),
            die_with_parent=True,
            search_attributes=names.SEARCH_ATTRIBUTES,
        )
        self._port = int(self.server.info.address.rpartition(":")[2])

    def start_worker(
        self, module: str = "temporal_fabric.cli", /, **env: str
    ) -> subprocess.Popen[bytes]:
        """Start a worker and return when it polls its queues.

        Args:
            module: The module that is run; one that stands in for the command line.
            env: Further variables.
        """
        self.settings.logs.mkdir(parents=True, exist_ok=True)
        path = self.settings.logs / "worker.log"
        with path.open("ab") as log:
            before = log.tell()
            worker = subprocess.Popen(
                [sys.executable, "-m", module, "worker", "--address", self.address],
                env=self.env | env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + _START_S
        while b"worker   host" not in (said := path.read_bytes()[before:]):
            if worker.poll() is not None or time.monotonic() > deadline:
                worker.kill()
                raise RuntimeError(f"the worker did not start:\n{said.decode(errors='replace')}")
            time.sleep(0.05)
        self.worker = worker
        return worker

    def kill_worker(self) -> None:
        """SIGKILL the worker."""
        if self.worker is not None:
            self.worker.send_signal(signal.SIGKILL)
            self.worker.wait()
            self.worker = None

    def stop_worker(self) -> int:
        """SIGTERM the worker and return its exit code."""
        if self.worker is None:
            raise RuntimeError("no worker runs")
        self.worker.terminate()
        code = self.worker.wait(_STOP_S)
        self.worker = None
        return code

    def cli(self, *args: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run the command line against this environment."""
        return subprocess.run(
            [sys.executable, "-m", "temporal_fabric.cli", *args],
            env=self.env | {"COLUMNS": "200"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    async def stop_launcher(self) -> None:
        """End the launcher and every payload it still runs."""
        try:
            launcher = await LauncherClient.connect(self.settings.launcher, start=False)
        except FabricError:
            return  # none runs
        async with asyncio.timeout(_STOP_S):
            for record in await launcher.keys():
                await launcher.terminate(record.key, 0.0)
            await launcher.shutdown()
            await launcher.aclose()

    async def close(self) -> None:
        """End everything that was started here."""
        if self.worker is not None:
            self.stop_worker()
        await self.stop_launcher()
        await asyncio.to_thread(clear_groups, self.settings.launcher)
        if self.server is not None:
            self.server.stop()
            self.server = None
