"""A server and a watched worker: metrics with a token, spans to a collector."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from temporal_fabric.client import Fabric
from temporal_fabric.connection import connect
from temporal_fabric.testing.environment import FabricEnvironment
from temporal_fabric.watch_settings import TracingSettings
from tests.observability.collector import Collector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

TOKEN = "0123456789abcdef-a-token-of-this-test"  # noqa: S105


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    """A collector of spans."""
    found = Collector()
    yield found
    found.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def environment(collector: Collector) -> AsyncIterator[FabricEnvironment]:
    """A server with one worker that is watched in every way."""
    home = Path(tempfile.mkdtemp(prefix="fab"))
    watched = {
        "FABRIC_SLOTS": "1",
        "FABRIC_METRICS_PORT": "0",
        "FABRIC_METRICS_TOKEN": TOKEN,
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }
    found = FabricEnvironment(home, watched)
    found.start_server()
    try:
        found.start_worker()
        yield found
    finally:
        await found.close()
        shutil.rmtree(home, ignore_errors=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fabric(environment: FabricEnvironment, collector: Collector) -> Fabric:
    """A client that traces what it submits."""
    settings = replace(environment.settings, tracing=TracingSettings(f"{collector.url}/v1/traces"))
    client = await connect(settings, address=environment.address)
    return Fabric(client, settings)
