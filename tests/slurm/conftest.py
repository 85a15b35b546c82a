"""One Slurm site for all tests of this folder, adapters of it, and a fabric that uses it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
import tomli_w

from temporal_fabric.client import Fabric
from temporal_fabric.connection import connect
from temporal_fabric.testing.environment import FabricEnvironment
from temporal_fabric.testing.slurm_bench import SlurmBench, site_options
from temporal_fabric.testing.slurm_site import SlurmSite, SlurmUnavailable
from tests.backends import missing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


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
    folder = Path(tempfile.mkdtemp(prefix="fab"))
    found = SlurmBench(folder, site)
    try:
        yield found
    finally:
        await found.settle()
        await found.aclose()
        shutil.rmtree(folder, ignore_errors=True)


def configuration(site: SlurmSite, **more: Any) -> str:
    """Return the text of a ``fabric.toml`` with the site as the backend ``cluster``."""
    options = site_options(site) | more
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
