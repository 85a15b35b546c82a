"""The conformance bench of the Slurm adapter: a real site, and faults on the way to it."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import socket
from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters.slurm_jobs import SlurmJobsAdapter
from temporal_fabric.config import BackendConfig, Settings
from temporal_fabric.testing import slurm_fault
from temporal_fabric.testing.bench import Bench, Fault
from temporal_fabric.testing.slurm_site import PYTHON

if TYPE_CHECKING:
    from pathlib import Path

    from temporal_fabric.adapters.contract import Adapter
    from temporal_fabric.testing.slurm_site import SlurmSite

_VERBS = {
    "submit": "submit",
    "find": "look",
    "get_status": "look",
    "wait": "look",
    "terminate": "stop",
    "forget": "forget",
}
"""The word of the login node's program for what a call is about."""


class SlurmBench(Bench):
    """Adapters of one site, each with a connection of its own.

    Args:
        folder: A folder of the test's own; short, because a Unix socket lies in it.
        site: A site that runs; it stays up.
        variant: For the report.
    """

    def __init__(self, folder: Path, site: SlurmSite, variant: str = "") -> None:
        super().__init__(folder, variant)
        self.site = site
        self._settings = Settings(home=folder, store=folder.as_uri())
        self._silent: list[socket.socket] = []
        # Payloads run as another user, who has to reach the ledger.
        folder.chmod(0o711)
        self.ledger.socket.chmod(0o777)

    def options(self) -> dict[str, Any]:
        """Return the options of a backend that is the site."""
        return site_options(self.site)

    def make(self, **more: Any) -> Adapter:
        """Return an adapter of the site.

        Args:
            more: Options that differ from the usual ones.
        """
        options = self.options() | more
        config = BackendConfig("slurm", kind="slurm", options=options)
        return SlurmJobsAdapter(config, self._settings, "conformance")

    async def make_faulty(self, call: str, fault: Fault) -> Adapter:
        """Return an adapter whose login node answers as the fault says."""
        if fault is Fault.AWAY:
            silent = socket.create_server(("127.0.0.1", 0))
            self._silent.append(silent)
            return self.make(port=silent.getsockname()[1], connect_s=2)
        name = f"fault-{secrets.token_hex(4)}"  # several benches may share a site
        program = self.site.folder / "slurm_fault.py"
        shutil.copy(slurm_fault.__file__, program)
        program.chmod(0o755)
        counter = self.site.home / name
        command = f"{PYTHON} {program} {_VERBS[call]} {fault} {counter}"
        key = await asyncio.to_thread(self.site.allow, name, command)
        return self.make(key=str(key))

    async def lose_jobs(self) -> None:
        """Let the node crash with what runs on it, and the controller restart."""
        await asyncio.to_thread(self.site.lose_jobs)

    def body(self, code: str) -> dict[str, Any]:
        """Return the request that runs some Python on the node."""
        env = {"EVIDENCE": str(self.ledger.socket)}
        command = [PYTHON, "-S", "-E", "-c", code]
        return {"payload": {"process": {"command": command, "env": env}}}

    async def settle(self) -> None:
        """End what a case has left behind, its silent hosts too."""
        await super().settle()
        for silent in self._silent:
            silent.close()
        self._silent = []


def site_options(site: SlurmSite) -> dict[str, Any]:
    """Return the options of a backend that is a site of tests."""
    return {
        "host": "127.0.0.1",
        "port": site.port,
        "user": site.user,
        "key": str(site.key),
        "host_key": site.host_key,
        "python": PYTHON,
        "poll_s": 0.2,
        "settle_s": 2,
    }
