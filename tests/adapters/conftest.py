"""Fixtures: benches of the local adapter in every way this host runs one, of Docker, of a lab."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from temporal_fabric.errors import BackendUnknown
from temporal_fabric.testing.conformance import new_report
from temporal_fabric.testing.docker_bench import START, DockerBench
from temporal_fabric.testing.local_bench import LocalBench
from temporal_fabric.testing.sila_bench import SilaBench

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from temporal_fabric.adapters.conformance_report import Report
    from temporal_fabric.testing.docker_daemon import DockerDaemon

MODES = ("pidns", "userns", "plain")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=MODES)
async def every_bench(request: pytest.FixtureRequest) -> AsyncIterator[LocalBench]:
    """A bench whose launcher is forced into one mode."""
    async for found in local_bench(str(request.param)):
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench() -> AsyncIterator[LocalBench]:
    """A bench whose launcher runs in the host's best way."""
    async for found in local_bench(""):
        yield found


async def local_bench(mode: str) -> AsyncIterator[LocalBench]:
    """Yield a bench of the local adapter; skip where this host has no such mode."""
    folder = Path(tempfile.mkdtemp(prefix="fab"))
    with pytest.MonkeyPatch.context() as patch:
        if mode:
            patch.setenv("FABRIC_LAUNCHER_MODE", mode)
        found = LocalBench(folder, mode)
        try:
            await found.settle()
            await found.adapter().inventory()
        except BackendUnknown as exc:
            pytest.skip(f"this host has no {mode}: {exc}")
        else:
            yield found
        finally:
            await found.settle()
            await found.aclose()
            shutil.rmtree(folder, ignore_errors=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def docker_bench(docker: DockerDaemon) -> AsyncIterator[DockerBench]:
    """A bench whose submits meet their faults where the container is created."""
    async for found in _docker_bench(docker, ""):
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def docker_start_bench(docker: DockerDaemon) -> AsyncIterator[DockerBench]:
    """A bench whose submits meet their faults where the container is started."""
    async for found in _docker_bench(docker, START):
        yield found


async def _docker_bench(docker: DockerDaemon, variant: str) -> AsyncIterator[DockerBench]:
    folder = Path(tempfile.mkdtemp(prefix="fab"))
    found = DockerBench(folder, docker, variant)
    yield found
    await found.aclose()
    shutil.rmtree(folder)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sila_bench() -> AsyncIterator[SilaBench]:
    """A bench of the lab adapter."""
    folder = Path(tempfile.mkdtemp(prefix="fab"))
    found = SilaBench(folder)
    yield found
    await found.aclose()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def report(every_bench: LocalBench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Report]:
    """The report of a bench, which is written when the last case has run."""
    found = new_report(every_bench)
    yield found
    path = found.write(tmp_path_factory.mktemp("conformance"))
    assert type(found).read(path) == found
