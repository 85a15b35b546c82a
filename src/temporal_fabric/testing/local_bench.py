"""The conformance bench of the local adapter: a launcher of its own, with a relay before it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from itertools import count
from typing import TYPE_CHECKING

from temporal_fabric.adapters.local_process import LocalProcessAdapter
from temporal_fabric.config import BackendConfig, Settings
from temporal_fabric.errors import BackendUnknown
from temporal_fabric.launcher import LauncherClient
from temporal_fabric.launcher.protocol import SOCKET
from temporal_fabric.testing.bench import Bench, Fault
from temporal_fabric.testing.launcher_left import clear_groups
from temporal_fabric.testing.relay import LineRelay

if TYPE_CHECKING:
    from pathlib import Path

    from temporal_fabric.adapters.contract import Adapter

_OPERATIONS = {"submit": "start", "find": "query", "get_status": "query"}
"""The launcher's name of a call, where it has another one."""

_LOCK = "launcher.lock"


class LocalBench(Bench):
    """A launcher under a folder of the test's own; ``FABRIC_LAUNCHER_MODE`` chooses its mode."""

    def __init__(self, folder: Path, variant: str = "") -> None:
        super().__init__(folder, variant)
        self._settings = Settings(home=folder, store=folder.as_uri())
        self._relays: list[LineRelay] = []
        self._homes = count()

    def make(self) -> Adapter:
        """Return an adapter of the launcher."""
        return LocalProcessAdapter(BackendConfig("local", slots=64), self._settings, "conformance")

    async def make_faulty(self, call: str, fault: Fault) -> Adapter:
        """Return an adapter that reaches the launcher through a relay."""
        await self._launcher_pid()
        home = self.folder / f"r{next(self._homes)}"
        (home / "launcher").mkdir(parents=True)
        (home / "runs").symlink_to(self.runs)
        # With the lock of the real one, so that nobody starts a second launcher here.
        (home / "launcher" / _LOCK).symlink_to(self._settings.launcher / _LOCK)
        match = f'"op":"{_OPERATIONS.get(call, call)}"'.encode()
        relay = LineRelay(
            home / "launcher" / SOCKET, self._settings.launcher / SOCKET, match, fault, _garble
        )
        await relay.start()
        self._relays.append(relay)
        settings = Settings(home=home, store=self._settings.store)
        return LocalProcessAdapter(BackendConfig("local", slots=64), settings, "conformance")

    async def lose_jobs(self) -> None:
        """Kill the launcher, which takes its payloads along."""
        os.kill(await self._launcher_pid(), signal.SIGKILL)

    async def _launcher_pid(self) -> int:
        client = await LauncherClient.connect(self._settings.launcher)
        try:
            return client.launcher_pid
        finally:
            await client.aclose()

    async def settle(self) -> None:
        """End what a case has left behind, its relays too."""
        await super().settle()
        for relay in self._relays:
            await relay.aclose()
        self._relays = []

    async def aclose(self) -> None:
        """End the launcher, and payloads that nobody has asked for."""
        try:
            client = await LauncherClient.connect(self._settings.launcher, start=False)
        except BackendUnknown:
            pass  # none runs
        else:
            for record in await client.keys():
                await client.terminate(record.key, 0.0)
            await client.shutdown()
            await client.aclose()
        await asyncio.to_thread(clear_groups, self._settings.launcher)
        await super().aclose()


def _garble(reply: bytes, turn: int) -> bytes:
    """Return no answer: noise, half a line, or what has the form of one and no meaning."""
    number = json.loads(reply)["id"]
    shapes: tuple[object, ...] = (
        {"id": number, "ok": {"state": "perhaps", "key": "?"}},
        {"id": number, "ok": None},
        {"id": number, "ok": {"state": "absent", "key": "default@another@1"}},
        {"id": number, "error": "no"},
        {"id": number},
        [number],
    )
    lines = (b"\x00\xff\n", reply[: len(reply) // 2] + b"\n")
    return (*lines, *(json.dumps(shape).encode() + b"\n" for shape in shapes))[turn % 8]
