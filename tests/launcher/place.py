"""A launcher's home for one test, with what the tests ask about it from outside."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from temporal_fabric.launcher import (
    LauncherClient,
    LaunchRecord,
    LaunchSpec,
    cgroups,
    detection,
    syscalls,
)
from temporal_fabric.launcher.sweep import INFO
from temporal_fabric.launcher.trees import marked_by, signal_marked

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCE = Path(__file__).parents[2] / "src"


class Place:
    """A home, its clients and its evidence."""

    def __init__(self, folder: Path, home: Path | None = None) -> None:
        self.folder = folder
        self.home = folder / "home" if home is None else home
        self.evidence = folder / "evidence"
        # Nobody else sleeps exactly that long: it names this test's processes.
        self.naptime = f"{random.SystemRandom().randint(3000, 9000)}.{time.time_ns()}"
        self._clients: list[LauncherClient] = []

    async def connect(self, *, start: bool = True, timeout_s: float = 15.0) -> LauncherClient:
        """Return one more client."""
        client = await LauncherClient.connect(self.home, start=start, timeout_s=timeout_s)
        self._clients.append(client)
        return client

    def spec(
        self, key: str, script: str, *, wall_s: float | None = None, grace_s: float = 10.0
    ) -> LaunchSpec:
        """Return a payload that runs a shell script in the test's folder."""
        return LaunchSpec(
            key=key,
            argv=("sh", "-c", script),
            env={"PATH": os.environ["PATH"], "NAP": self.naptime},
            cwd=str(self.folder),
            stdout=str(self.folder / f"{key}.out"),
            stderr=str(self.folder / f"{key}.err"),
            wall_s=wall_s,
            grace_s=grace_s,
        )

    def python(self, code: str) -> list[str]:
        """Return the command line of a worker-like process that knows the home as HOME."""
        head = "import asyncio, os, sys\nfrom pathlib import Path\n"
        head += f"sys.path.insert(0, {str(SOURCE)!r})\n"
        head += "from temporal_fabric.launcher import LauncherClient, LaunchSpec\n"
        head += f"HOME, FOLDER = Path({str(self.home)!r}), {str(self.folder)!r}\n"
        return [sys.executable, "-c", head + code]

    def runs(self) -> list[str]:
        """Return the lines that payloads appended to the evidence."""
        return self.evidence.read_text().split() if self.evidence.exists() else []

    def memory_limit(self, key: str) -> Path | None:
        """Return the file that limits the memory of an attempt's tree."""
        base = detection.detect(f"fabric-{syscalls.home_id(self.home)}").memory
        if base is None:
            return None
        newer = (base / "memory.events").exists()
        return base / f"a-{key}" / ("memory.max" if newer else "memory.limit_in_bytes")

    def temporaries(self) -> list[Path]:
        """Return half-written records."""
        return list((self.home / "attempts").glob("*.tmp"))

    def nappers(self) -> int:
        """Count the live processes of this test that sleep, marked or not."""
        return count_nappers(self.naptime)

    def launchers(self) -> int:
        """Count the live launcher processes of this home."""
        ours = str(self.home).encode()
        return sum(
            ours in words and any(word.endswith(b"starter.py") for word in words)
            for words in (
                _read(path / "cmdline").split(b"\0")
                for path in Path("/proc").iterdir()
                if path.name.isdigit()
            )
        )

    async def kill_launcher(self) -> None:
        """SIGKILL the launcher and wait until it, and its namespace, are dead."""
        info = json.loads((self.home / INFO).read_text())
        if syscalls.start_time(info["pid"]) == info["start_time"]:
            os.kill(info["pid"], signal.SIGKILL)
        assert await asyncio.to_thread(syscalls.wait_gone, info["pid"], info["start_time"], 10.0)

    def tear(self, key: str, content: bytes) -> None:
        """Overwrite a record."""
        (self.home / "attempts" / f"{key}.json").write_bytes(content)

    def edit(self, record: LaunchRecord, **changes: object) -> None:
        """Write a record as an earlier launcher might have left it."""
        self.tear(record.key, json.dumps(record.as_dict() | changes).encode())

    async def close(self) -> None:
        """End everything; nothing may be left of any kind."""
        for client in self._clients:
            await client.aclose()
        if not self.home.exists():
            return
        async with await LauncherClient.connect(self.home) as client:
            for record in await client.keys():
                await client.terminate(record.key, 0.0)
            await client.shutdown()
        identity = syscalls.home_id(self.home)
        assert signal_marked(marked_by(identity), None) == 0
        assert self.nappers() == 0
        assert await until(lambda: self.launchers() == 0)
        assert cgroups_of(identity) == []
        shutil.rmtree(self.home)


def count_nappers(naptime: str) -> int:
    """Count the live processes whose command line has this word."""
    return sum(
        naptime.encode() in _read(path / "cmdline").split(b"\0")
        for path in Path("/proc").iterdir()
        if path.name.isdigit()
    )


async def until(condition: Callable[[], bool], limit_s: float = 10.0) -> bool:
    """Wait for a condition; return whether it came."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.01)
    return True


def cgroups_of(identity: str) -> list[Path]:
    """Return the control groups that carry a home's name, below our own groups."""
    found = detection.detect("fabric-tests-probe")
    for folder in found.folders():
        cgroups.remove_group(folder)
    return [
        folder.with_name(f"fabric-{identity}")
        for folder in found.folders()
        if folder.with_name(f"fabric-{identity}").exists()
    ]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
