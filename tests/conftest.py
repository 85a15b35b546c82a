"""Fixtures: a real server and a real worker, ended whatever a test did to them."""

from __future__ import annotations

import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from temporal_fabric.client import Fabric
from temporal_fabric.connection import connect
from temporal_fabric.testing.docker_daemon import DockerDaemon, DockerUnavailable, left_of
from temporal_fabric.testing.environment import FabricEnvironment
from temporal_fabric.testing.evidence import EvidenceLedger
from tests.artifacts.servers import S3Server
from tests.backends import missing
from tests.flow_bodies import InProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from temporal_fabric.config import Settings


# A shell starts what it runs in the background with Ctrl-C ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


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


@pytest.fixture(scope="module")
def worker_env() -> Mapping[str, str]:
    """Variables of the shared environment's worker; a module overrides what it needs."""
    return {}


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    """An S3 server with one bucket, ``bucket``."""
    with tempfile.TemporaryDirectory() as folder:
        found = S3Server(Path(folder))
        yield found
        found.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def environment(worker_env: Mapping[str, str]) -> AsyncIterator[FabricEnvironment]:
    """A server with one worker, shared by the tests of a module that leave both alive."""
    async with FabricEnvironment.fresh(worker_env) as found:
        yield found


@pytest_asyncio.fixture
async def own_environment() -> AsyncIterator[FabricEnvironment]:
    """A server without a worker, for one test that kills things."""
    async with FabricEnvironment.fresh(worker=False) as found:
        yield found


@pytest_asyncio.fixture
async def running(own_environment: FabricEnvironment) -> tuple[FabricEnvironment, Fabric]:
    """The environment of one test with a worker, and its client."""
    own_environment.start_worker()
    client = await connect(own_environment.settings, address=own_environment.address)
    return (own_environment, Fabric(client, own_environment.settings))


@pytest.fixture(scope="module")
def client_settings(environment: FabricEnvironment) -> Settings:
    """Settings of the shared client; a module overrides what it needs."""
    return environment.settings


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fabric(environment: FabricEnvironment, client_settings: Settings) -> Fabric:
    """A connected client of the shared environment."""
    return Fabric(await connect(client_settings, address=environment.address), client_settings)


@pytest.fixture(scope="session")
def docker() -> Iterator[DockerDaemon]:
    """A Docker engine with the image of Debian's Python; who kills it starts it again."""
    try:
        found = DockerDaemon()
    except DockerUnavailable as exc:
        missing("docker", str(exc))
    try:
        found.start()
        found.load_image()
        yield found
    except DockerUnavailable as exc:
        missing("docker", str(exc))
    finally:
        found.close()
        assert not left_of(found.folder)


@pytest.fixture(scope="module")
def jax_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the flows of a module keep what they compiled."""
    return tmp_path_factory.mktemp("jax")


@pytest.fixture(scope="module")
def in_process(tmp_path_factory: pytest.TempPathFactory, jax_cache: Path) -> InProcess:
    """The same flows without a server."""
    return InProcess(tmp_path_factory.mktemp("flows"), jax_cache)
