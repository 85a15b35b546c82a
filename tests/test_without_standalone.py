"""A server without activities of their own: experiments run, what asks a worker says why not."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from temporal_fabric.devserver import spawn
from temporal_fabric.testing.environment import FabricEnvironment
from tests.bodies import shell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from temporal_fabric import Fabric

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def environment() -> AsyncIterator[FabricEnvironment]:
    """A worker on a server that is told to have none, as one from before it had them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(spawn.DYNAMIC_CONFIG, "activity.enableStandalone", "false")
        async with FabricEnvironment.fresh() as found:
            yield found


async def test_doctor_warns(environment: FabricEnvironment) -> None:
    """A warning with the setting to change; everything else is well."""
    done = environment.cli("doctor", "-o", "json")

    found = {check["name"]: check for check in json.loads(done.stdout)}
    assert done.returncode == 0
    assert found["standalone activities"]["verdict"] == "warn"
    assert "activity.enableStandalone" in found["standalone activities"]["remedy"]
    assert found["fabric.pool.default"]["verdict"] == "ok"


async def test_an_experiment_runs_and_a_command_is_refused(
    environment: FabricEnvironment, fabric: Fabric
) -> None:
    """`submit` does without the question beforehand; what asks a worker leads to the doctor."""
    result = await (await fabric.submit(shell("true"))).result()
    handle = await fabric.submit(shell("sleep 60"))
    async with asyncio.timeout(30):
        while (await handle.status()).state != "RUNNING":
            await asyncio.sleep(0.1)
    commands = (("backends",), ("exec", handle.id, "--", "true"))
    asked = [environment.cli(*command) for command in commands]
    await handle.cancel()

    assert result.state == "SUCCEEDED"
    for done in asked:
        assert done.returncode == 69, done
        assert "'temporal-fabric doctor' says what it lacks" in done.stderr, done
