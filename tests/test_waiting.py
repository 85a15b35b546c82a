"""Why a queued experiment waits is seen from outside: in `status`, in `list` and in Python."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.bodies import shell

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from temporal_fabric import Fabric
    from temporal_fabric.handle import ExperimentHandle
    from temporal_fabric.testing.environment import FabricEnvironment

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def worker_env() -> Mapping[str, str]:
    """The worker runs one experiment at a time."""
    return {"FABRIC_SLOTS": "1"}


async def _reason(handle: ExperimentHandle, wanted: str) -> None:
    async with asyncio.timeout(30):
        while (await handle.status(detail=False)).reason != wanted:
            await asyncio.sleep(0.2)


async def _shown(environment: FabricEnvironment, handle: ExperimentHandle) -> tuple[Any, ...]:
    """Return status as JSON and text, and the row of the list."""
    status = await asyncio.to_thread(environment.cli, "status", handle.id, "-o", "json")
    text = await asyncio.to_thread(environment.cli, "status", handle.id)
    listed = await asyncio.to_thread(environment.cli, "list", "-o", "json")
    row = next(row for row in json.loads(listed.stdout) if row["request_id"] == handle.id)
    return json.loads(status.stdout), text.stdout, row


async def test_a_full_backend_and_a_dependency(
    fabric: Fabric, environment: FabricEnvironment, tmp_path: Path
) -> None:
    """WAITING_FOR_CAPACITY names the backend, DEPENDENCY the other; both go when it runs."""
    first = await fabric.submit(shell(f"until test -e {tmp_path}/go; do sleep 0.2; done"))
    async with asyncio.timeout(30):
        while (await first.status(detail=False)).state != "RUNNING":
            await asyncio.sleep(0.1)
    second = await fabric.submit(shell("echo 1 > $FABRIC_OUTPUT_DIR/x"))
    await _reason(second, "WAITING_FOR_CAPACITY")
    body = shell("true")
    uri = f"capsule://default/{second.id}/x"
    body["payload"]["process"]["inputs"] = [{"source_uri": uri, "mount_path": "x"}]
    third = await fabric.submit(body)
    await _reason(third, "DEPENDENCY")

    (full, full_text, full_row), (chained, chained_text, chained_row) = await asyncio.gather(
        _shown(environment, second), _shown(environment, third)
    )
    (tmp_path / "go").touch()
    await asyncio.gather(*(handle.result() for handle in (first, second, third)))
    ended = await third.status()

    assert (full["state"], full["reason"]) == ("QUEUED", "WAITING_FOR_CAPACITY")
    assert full["message"].startswith("waits for a place on local@")
    assert (chained["state"], chained["reason"]) == ("QUEUED", "DEPENDENCY")
    assert chained["message"] == f"waits until default/{second.id} has ended"
    assert full["message"] in full_text
    assert chained["message"] in chained_text
    assert (full_row["reason"], chained_row["reason"]) == ("WAITING_FOR_CAPACITY", "DEPENDENCY")
    assert (ended.state, ended.reason, ended.message) == ("SUCCEEDED", "", "")
