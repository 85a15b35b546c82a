"""Adapters of the tests' own site with other options than the suite's."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from temporal_fabric.adapters.contract import Adapter
    from temporal_fabric.testing.slurm_bench import SlurmBench


@asynccontextmanager
async def adapter_with(bench: SlurmBench, **options: Any) -> AsyncGenerator[Adapter]:
    """Yield an adapter of the site with other options."""
    found = bench.make(**options)
    try:
        yield found
    finally:
        await found.aclose()
