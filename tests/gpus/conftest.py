"""Fixtures: the driver's library as a stand-in, and a folder that payloads report to."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from temporal_fabric.testing.nvml import NvmlUnavailable, StandInNvml
from tests.gpus.holding import Holding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@pytest.fixture(scope="module")
def nvml() -> Iterator[StandInNvml]:
    """The driver's library, which shows what a test tells it to."""
    folder = Path(tempfile.mkdtemp(prefix="fabgpu"))
    try:
        yield StandInNvml(folder)
    except NvmlUnavailable as exc:
        pytest.skip(str(exc))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def worker_env(nvml: StandInNvml) -> Mapping[str, str]:
    """The worker sees the stand-in's devices, and runs more payloads at once than there are."""
    return {**nvml.env, "FABRIC_SLOTS": "8"}


@pytest.fixture
def holding(tmp_path: Path) -> Holding:
    """Where payloads note which devices they have."""
    return Holding(tmp_path)
