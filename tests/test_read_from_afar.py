"""Logs reach a client that shares no disk with the worker."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from temporal_fabric import Fabric
from temporal_fabric.config import Settings
from temporal_fabric.connection import connect
from temporal_fabric.logs import read_logs
from tests.bodies import shell

if TYPE_CHECKING:
    from pathlib import Path

    from temporal_fabric.testing.environment import FabricEnvironment

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_logs_of_another_host(environment: FabricEnvironment, tmp_path: Path) -> None:
    """Followed while it runs and read after the seal, through the worker alone."""
    elsewhere = Settings(home=tmp_path, store=(tmp_path / "store").as_uri())
    client = await connect(elsewhere, address=environment.address)
    fabric = Fabric(client, elsewhere)
    body = shell("for i in 1 2 3; do echo line $i; sleep 0.7; done; echo x >&2")
    handle = await fabric.submit(body)
    while (await handle.status(detail=False)).state != "RUNNING":
        await asyncio.sleep(0.05)

    followed = b"".join([piece async for piece in read_logs(handle, elsewhere, follow=True)])
    await handle.result()
    sealed = b"".join([piece async for piece in read_logs(handle, elsewhere)])
    errors = b"".join([piece async for piece in read_logs(handle, elsewhere, stream="stderr")])

    assert followed == sealed == b"line 1\nline 2\nline 3\n"
    assert errors == b"x\n"
