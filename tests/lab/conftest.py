"""A plate handler in a process of its own, and a fabric that has it as its one backend."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from temporal_fabric import Fabric
from temporal_fabric.connection import connect
from temporal_fabric.testing.environment import FabricEnvironment
from temporal_fabric.testing.faults import FailPoints
from temporal_fabric.testing.sila_bench import free_port
from tests.lab.held_devices import EXAMPLE
from tests.lab.requests import BACKEND

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator
    from pathlib import Path


class Device:
    """A plate handler of the examples in a process of its own."""

    def __init__(self, path: Path) -> None:
        self.path, self.port = path, free_port()
        self._process: subprocess.Popen[str] | None = None

    def start(self, pace_s: float = 0.2) -> None:
        """Start it; a movement takes ``pace_s``, and a well clogs its tip."""
        command = [sys.executable, str(EXAMPLE), "--port", str(self.port), "--pace", str(pace_s)]
        self._process = subprocess.Popen(
            [*command, "--count", str(self.path), "--clogged", "H12", "--lock"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert "listens" in self._process.stdout.readline()

    def kill(self) -> None:
        """SIGKILL it."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def moved(self) -> list[str]:
        """Return the movements that it has ended, in their order."""
        return self._movements("end")

    def begun(self) -> list[str]:
        """Return the movements that it has begun, in their order."""
        return self._movements("begin")

    def _movements(self, what: str) -> list[str]:
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        found = [json.loads(line) for line in lines]
        return [line["movement"] for line in found if line["is"] == what]

    @contextmanager
    def watched(self) -> Generator[list[str]]:
        """Give the list in which the movements until the exit are found afterwards."""
        before, found = len(self.moved()), list[str]()
        yield found
        found += self.moved()[before:]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def device(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Device]:
    """A device."""
    found = Device(tmp_path_factory.mktemp("device") / "moved.jsonl")
    found.start()
    yield found
    found.kill()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lab(device: Device) -> AsyncIterator[tuple[FabricEnvironment, Fabric]]:
    """A fabric with the device as its one backend."""
    config = BACKEND.format(place=1, port=device.port)
    points = FailPoints(device.path.parent / "points")
    async with FabricEnvironment.fresh(points.env, config=config) as env:
        yield env, Fabric(await connect(env.settings, address=env.address), env.settings)


@pytest.fixture(scope="module")
def points(device: Device) -> FailPoints:
    """The fail points of the lab's worker."""
    return FailPoints(device.path.parent / "points")
