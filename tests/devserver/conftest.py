"""Real servers from the real binary, each in a folder of its own."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from temporal_fabric.devserver import DevServer, resolve_binary

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Servers:
    """Starts servers and kills what a test left running."""

    def __init__(self, cli: Path) -> None:
        self.cli = cli
        self._started: list[DevServer] = []

    def start(self, home: Path, **changes: Any) -> DevServer:
        """Start a server on any port, without web UI unless asked."""
        options: dict[str, Any] = {
            "durable": False,
            "port": 0,
            "ui": False,
            "cli": self.cli,
        } | changes
        server = DevServer.start(home, **options)
        self._started.append(server)
        return server

    def kill_all(self) -> None:
        """End every server that was started."""
        for server in self._started:
            with contextlib.suppress(ProcessLookupError):
                server.kill()


@pytest.fixture(scope="session")
def cli() -> Path:
    """The real binary; the first run on a machine builds it."""
    return resolve_binary()


@pytest.fixture
def servers(cli: Path) -> Iterator[Servers]:
    """Starts servers that end with the test."""
    started = Servers(cli)
    yield started
    started.kill_all()
