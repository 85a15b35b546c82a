"""One cluster for all tests of this folder; nothing of it is left when they have ended."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from temporal_fabric.testing.debian_image import NAME as IMAGE
from temporal_fabric.testing.kubernetes_bench import KubernetesBench
from tests.backends import missing
from tests.backends.kubernetes_cluster import HOST_IP, ClusterUnavailable, KubernetesCluster

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator


@pytest.fixture(scope="package")
def kubernetes() -> Iterator[KubernetesCluster]:
    """A cluster of one node."""
    try:
        found = KubernetesCluster()
    except ClusterUnavailable as exc:
        missing("kubernetes", str(exc))
        raise
    try:
        found.start()
        yield found
    finally:
        found.stop()


@asynccontextmanager
async def opened_bench(kubernetes: KubernetesCluster) -> AsyncGenerator[KubernetesBench]:
    """Yield a bench of the adapter on the cluster; what it has started ends with it."""
    folder = Path(tempfile.mkdtemp(prefix="fab"))
    found = KubernetesBench(folder, kubernetes, IMAGE, HOST_IP)
    try:
        yield found
    finally:
        await found.settle()
        await found.aclose()
        shutil.rmtree(folder, ignore_errors=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(kubernetes: KubernetesCluster) -> AsyncIterator[KubernetesBench]:
    """A bench of the adapter on the cluster."""
    async with opened_bench(kubernetes) as found:
        yield found
