"""What is true of experiments on the embedded server is true on a team's: the same tests."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.bodies import shell
from tests.test_experiment import *  # noqa: F403 - all of its tests, on this folder's fixtures

if TYPE_CHECKING:
    from temporal_fabric.client import Fabric

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_experiments_are_found_by_their_attributes(fabric: Fabric) -> None:
    """Search attributes work on PostgreSQL's visibility: found by state, and by tenant."""
    body = shell("true", tags=["on-a-cluster"])
    handle = await fabric.submit(body)
    await handle.result()

    query = "FabricState = 'SUCCEEDED' AND FabricTags = 'on-a-cluster'"
    while not (found := await fabric.list(query=query)):
        await asyncio.sleep(0.1)

    assert [status.request_id for status in found] == [body["id"]]
