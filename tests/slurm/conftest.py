"""One Slurm site for all tests of this folder, adapters of it, and a fabric that uses it."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
import pytest_asyncio
import tomli_w

from temporal_fabric.client import Fabric
from temporal_fabric.connection import connect
from temporal_fabric.testing.environment import FabricEnvironment
from temporal_fabric.testing.podman_store import PodmanUnavailable, check
from temporal_fabric.testing.slurm_bench import SlurmBench, site_options
from temporal_fabric.testing.slurm_podman_bench import SlurmPodmanBench
from temporal_fabric.testing.slurm_rest_bench import SlurmRestBench
from temporal_fabric.testing.slurm_site import SlurmSite, SlurmUnavailable
from tests.backends import missing

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

BenchT = TypeVar("BenchT", bound=SlurmBench)


@pytest.fixture(scope="session")
def site() -> Iterator[SlurmSite]:
    """A site that runs; a test that ends a part of it starts it again."""
    try:
        found = SlurmSite()
    except SlurmUnavailable as exc:
        missing("slurm", str(exc))
    try:
        found.start()
        yield found
    finally:
        found.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(site: SlurmSite) -> AsyncIterator[SlurmBench]:
    """A bench on the site."""
    async with _closing(SlurmBench(Path(tempfile.mkdtemp(prefix="fab")), site)) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def podman_bench(site: SlurmSite) -> AsyncIterator[SlurmPodmanBench]:
    """A bench whose payloads run in containers of podman."""
    try:
        check()
    except PodmanUnavailable as exc:
        missing("slurm", str(exc))
    async with _closing(SlurmPodmanBench(Path(tempfile.mkdtemp(prefix="fab")), site)) as found:
        yield found


@asynccontextmanager
async def _closing(found: BenchT) -> AsyncGenerator[BenchT]:
    try:
        yield found
    finally:
        await found.settle()
        await found.aclose()
        shutil.rmtree(found.folder, ignore_errors=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rest_bench(site: SlurmSite) -> AsyncIterator[SlurmRestBench]:
    """A bench that reaches the site by its slurmrestd."""
    async with _closing(SlurmRestBench(Path(tempfile.mkdtemp(prefix="fab")), site)) as found:
        yield found


def configuration(site: SlurmSite, **more: Any) -> str:
    """Return the text of a ``fabric.toml`` with the site as the backend ``cluster``."""
    return backend_table(site_options(site) | more)


def backend_table(options: dict[str, Any]) -> str:
    """Return the text of a ``fabric.toml`` with one backend, ``cluster``."""
    return tomli_w.dumps({"backends": {"cluster": {"kind": "slurm", "options": options}}})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def environment(site: SlurmSite) -> AsyncIterator[FabricEnvironment]:
    """A server, and a worker whose one backend is the site."""
    async with FabricEnvironment.fresh(config=configuration(site)) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fabric(environment: FabricEnvironment) -> Fabric:
    """A connected client of it."""
    settings = environment.settings
    return Fabric(await connect(settings, address=environment.address), settings)
