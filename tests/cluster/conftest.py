"""A cluster shared by the tests of this folder, and an environment whose server it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest_asyncio

from temporal_fabric.testing.cluster import Cluster, ClusterUnavailable
from temporal_fabric.testing.environment import FabricEnvironment
from tests.backends import missing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DYNAMIC_CONFIG = Path(__file__).parents[2] / "deploy" / "dynamicconfig.yaml"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster() -> AsyncIterator[Cluster]:
    """A running cluster, told what `docker-compose.yml` tells the server."""
    try:
        found = Cluster(DYNAMIC_CONFIG)
    except ClusterUnavailable as exc:
        missing("cluster", str(exc))
        raise
    try:
        await found.start()
        yield found
    finally:
        found.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def environment(cluster: Cluster) -> AsyncIterator[FabricEnvironment]:
    """A worker on the cluster."""
    async with FabricEnvironment.fresh(address=cluster.address) as found:
        yield found
