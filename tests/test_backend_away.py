"""A host that does not take its attempt: asked about, offered again, taken when it returns."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from temporal_fabric import Capsule, Fabric
from temporal_fabric.connection import connect
from temporal_fabric.names import ACTIVITY_ATTEMPT
from tests.bodies import shell

if TYPE_CHECKING:
    from collections.abc import Callable

    from temporal_fabric.handle import ExperimentHandle
    from temporal_fabric.testing.environment import FabricEnvironment

_CONFIG = '[backends.local]\nkind = "local"\npatience_s = 2\n'


async def _until(handle: ExperimentHandle, wanted: Callable[[Any], bool]) -> None:
    async with asyncio.timeout(60):
        while not wanted(await handle.status()):
            await asyncio.sleep(0.2)


async def _offers(handle: ExperimentHandle) -> int:
    events = [event async for event in handle.workflow.fetch_history_events()]
    scheduled = [e.activity_task_scheduled_event_attributes.activity_type.name for e in events]
    return scheduled.count(ACTIVITY_ATTEMPT)


async def test_a_dead_host_is_named_and_gets_its_attempt_when_it_returns(
    own_environment: FabricEnvironment,
) -> None:
    """The run says BACKEND_DOWN while its host is away, is offered again, and runs once."""
    env = own_environment
    (env.home / "fabric.toml").write_text(_CONFIG)
    env.start_worker()
    fabric = Fabric(await connect(env.settings, address=env.address), env.settings)
    handle = await fabric.submit(shell("echo one >> $FABRIC_OUTPUT_DIR/starts; sleep 25"))
    await _until(handle, lambda status: status.state == "RUNNING")
    other = env.home / "other"
    env.kill_worker()
    second = env.start_worker(FABRIC_HOME=str(other), FABRIC_STORE=env.settings.store)
    try:
        await _until(handle, lambda status: status.reason == "BACKEND_DOWN")
        listed = env.cli("status", handle.id)
        env.start_worker()
        await _until(handle, lambda status: status.reason != "BACKEND_DOWN")
        result = await handle.result()
    finally:
        second.terminate()
        second.wait(20)

    assert "BACKEND_DOWN" in listed.stdout
    assert await _offers(handle) >= 2
    assert (result.state, result.epoch) == ("SUCCEEDED", 1)
    assert Capsule.open(result.capsule).output("starts").read_text() == "one\n"
