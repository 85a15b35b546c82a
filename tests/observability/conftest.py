"""A server and a watched worker: metrics with a token, spans to a collector."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from temporal_fabric.watch_settings import TracingSettings
from tests.observability.collector import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from temporal_fabric.config import Settings
    from temporal_fabric.testing.environment import FabricEnvironment

TOKEN = "0123456789abcdef-a-token-of-this-test"  # noqa: S105


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    """A collector of spans."""
    found = Collector()
    yield found
    found.close()


@pytest.fixture(scope="module")
def worker_env(collector: Collector) -> Mapping[str, str]:
    """The worker is watched in every way."""
    return {
        "FABRIC_SLOTS": "1",
        "FABRIC_METRICS_PORT": "0",
        "FABRIC_METRICS_TOKEN": TOKEN,
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }


@pytest.fixture(scope="module")
def client_settings(environment: FabricEnvironment, collector: Collector) -> Settings:
    """The client traces what it submits."""
    return replace(environment.settings, tracing=TracingSettings(f"{collector.url}/v1/traces"))
