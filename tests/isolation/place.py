"""A launcher's home whose payloads run in the sandbox."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temporal_fabric.isolation import bubblewrap
from temporal_fabric.launcher.limits import Limits
from temporal_fabric.launcher.sandboxed import Sandbox, init_file
from tests.launcher.place import Place

if TYPE_CHECKING:
    from temporal_fabric.launcher import LauncherClient, LaunchRecord, LaunchSpec

BOMB = """
import os, time
started = 0
try:
    while started < 200:
        if os.fork() == 0:
            time.sleep(600)
        started += 1
except OSError:
    pass
print(started, flush=True)
"""
"""Forks until it is stopped, and says how often it could."""


class SandboxPlace(Place):
    """A home whose payloads are sandboxed, with what their sandbox shows."""

    @property
    def task(self) -> Path:
        """The one folder a payload may write to."""
        return self.folder / "fabric" / "task"

    def sandboxed(
        self, key: str, script: str, *, limits: Limits | None = None, **changes: Any
    ) -> LaunchSpec:
        """Return a sandboxed payload that runs a shell script."""
        self.task.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / "fabric" / "tmp"
        temporary.mkdir(exist_ok=True)
        view = bubblewrap.View(
            home=self.folder / "fabric",
            temporary=temporary,
            cwd=self.task,
            readable=(init_file(),),
            writable=(self.task,),
        )
        sandbox = Sandbox(
            bubblewrap.command(bubblewrap.find(), view),
            (sys.executable, "-I", "-S", str(init_file())),
            str(bubblewrap.filter_file()),
        )
        spec = replace(self.spec(key, script), cwd=str(self.task), sandbox=sandbox)
        return replace(spec, limits=limits or Limits(), **changes)

    def probing(self, key: str, code: str) -> LaunchSpec:
        """Return a sandboxed payload of Python code that prints one JSON value."""
        head = "import ctypes, errno, json, os, socket\n"
        argv = (sys.executable, "-I", "-S", "-c", head + code)
        return self.sandboxed(key, "", argv=argv)

    def said(self, key: str) -> Any:
        """Return the JSON value that a payload printed."""
        return json.loads((self.folder / f"{key}.out").read_text())

    def errors(self, key: str) -> str:
        """Return what a payload wrote to standard error."""
        return (self.folder / f"{key}.err").read_text()

    async def run(self, client: LauncherClient, spec: LaunchSpec) -> LaunchRecord:
        """Start a payload and wait for its end."""
        await client.start(spec)
        return await client.wait(spec.key, 30)


def mounts_of(folder: Path) -> list[str]:
    """Return what is mounted, in this process's view, from or below a folder."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if str(folder) in line]
