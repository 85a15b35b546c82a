"""One cluster for all tests of this folder; nothing of it is left when they have ended."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from temporal_fabric.testing.conformance import new_report
from temporal_fabric.testing.debian_image import NAME as IMAGE
from temporal_fabric.testing.kubernetes_bench import KubernetesBench
from tests.backends import missing
from tests.backends.kubernetes_cluster import HOST_IP, ClusterUnavailable, KubernetesCluster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from temporal_fabric.adapters.conformance_report import Report


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


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(kubernetes: KubernetesCluster) -> AsyncIterator[KubernetesBench]:
    """A bench of the adapter on the cluster."""
    folder = Path(tempfile.mkdtemp(prefix="fab"))
    found = KubernetesBench(folder, kubernetes, IMAGE, HOST_IP)
    yield found
    await found.settle()
    await found.aclose()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def report(bench: KubernetesBench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Report]:
    """The report of the bench, which is written when the last case has run."""
    found = new_report(bench)
    yield found
    path = found.write(tmp_path_factory.mktemp("conformance"))
    assert type(found).read(path) == found
