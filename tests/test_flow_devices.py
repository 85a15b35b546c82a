"""Flows of a host with several devices: a warm process for each, and one that has them all."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.flow_bodies import SMALL, endless, flow, reaches

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from temporal_fabric import Fabric
    from temporal_fabric.testing.environment import FabricEnvironment

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def worker_env(jax_cache: Path) -> Mapping[str, str]:
    """Let JAX take the processor for two devices."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(jax_cache),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "FABRIC_SLOTS": "8",
    }


async def test_a_process_for_each_device(environment: FabricEnvironment, fabric: Fabric) -> None:
    """Flows are spread over the devices, each computes on its own, a wide one has them all."""
    own = {"blur": {"type": "own", "entry_point": "tests.flow_bodies:tells_where"}}
    long = endless(1_000_000) | {"operators": own}
    spread = [await fabric.submit(flow(long, limits={"grace_s": 1})) for _ in range(4)]
    for handle in spread:
        await reaches(handle, 10)
    wide = await fabric.submit(flow(SMALL | {"devices": "all"}))

    result = await asyncio.wait_for(wide.result(), 120)
    of = [(await handle.status()).native_id for handle in spread]

    assert result.attempts[-1].native_id.endswith("2 devices")
    assert Counter(name.rpartition(", ")[2] for name in of) == {
        "device 0 of 2": 2,
        "device 1 of 2": 2,
    }
    assert len({name.split(", ")[1] for name in of}) == 2
    told = (environment.settings.logs / "flows.log").read_text()
    assert set(re.findall(r"computes on \S*(\d)$", told, re.MULTILINE)) == {"0", "1"}
    for handle in spread:
        await handle.cancel()
