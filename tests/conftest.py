"""Fixtures: a real server and a real worker, ended whatever a test did to them."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from temporal_fabric.client import Fabric
from temporal_fabric.connection import connect
from temporal_fabric.testing.environment import FabricEnvironment
from temporal_fabric.testing.evidence import EvidenceLedger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path is short enough for a Unix socket below it."""
    folder = Path(tempfile.mkdtemp(prefix="fab"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def ledger(short_folder: Path) -> Iterator[EvidenceLedger]:
    """An evidence ledger in a process of its own."""
    found = EvidenceLedger(short_folder)
    yield found
    found.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def environment() -> AsyncIterator[FabricEnvironment]:
    """A server with one worker, shared by the tests of a module that leave both alive."""
    async for found in _environment():
        found.start_worker()
        yield found


@pytest_asyncio.fixture
async def own_environment() -> AsyncIterator[FabricEnvironment]:
    """A server without a worker, for one test that kills things."""
    async for found in _environment():
        yield found


@pytest_asyncio.fixture
async def running(own_environment: FabricEnvironment) -> tuple[FabricEnvironment, Fabric]:
    """The environment of one test with a worker, and its client."""
    own_environment.start_worker()
    client = await connect(own_environment.settings, address=own_environment.address)
    return (own_environment, Fabric(client, own_environment.settings))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fabric(environment: FabricEnvironment) -> Fabric:
    """A connected client of the shared environment."""
    client = await connect(environment.settings, address=environment.address)
    return Fabric(client, environment.settings)


async def _environment() -> AsyncIterator[FabricEnvironment]:
    home = Path(tempfile.mkdtemp(prefix="fab"))
    found = FabricEnvironment(home)
    found.start_server()
    try:
        yield found
    finally:
        await found.close()
        shutil.rmtree(home, ignore_errors=True)
