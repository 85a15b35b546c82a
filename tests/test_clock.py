"""A worker's clock jumps by hours: nothing ends early, nothing is run again, the order stays."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from temporal_fabric import Capsule, Fabric
from temporal_fabric.connection import connect
from tests.backends import missing
from tests.bodies import REPORTER, python

if TYPE_CHECKING:
    from temporal_fabric.testing.environment import FabricEnvironment
    from temporal_fabric.testing.evidence import EvidenceLedger

_REPORT = REPORTER[-1]
PAYLOAD = f"""
import time
{_REPORT.replace("sys.argv[1]", "'start'")}
for step in range(1, 13):
    print('::fabric:: ' + json.dumps({{'step': step}}), flush=True)
    time.sleep(0.5)
"""


def _faketime() -> str:
    found = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if found is None:
        missing("clock", "libfaketime is not installed")
    return str(found)


@pytest.mark.parametrize("jump", ["+1h", "-1h", "+1d", "-1d"])
async def test_a_jump_of_the_workers_clock(
    own_environment: FabricEnvironment, ledger: EvidenceLedger, jump: str
) -> None:
    """With a wall limit, a heartbeat and a recorder at work the run ends as if nothing was."""
    env = own_environment
    offset = env.home / "clock"
    offset.write_text("+0")
    env.start_worker(
        LD_PRELOAD=_faketime(),
        FAKETIME_TIMESTAMP_FILE=str(offset),
        FAKETIME_NO_CACHE="1",
        DONT_FAKE_MONOTONIC="1",
    )
    fabric = Fabric(await connect(env.settings, address=env.address), env.settings)
    body = python(PAYLOAD, env={"EVIDENCE": str(ledger.socket)}, limits={"wall_s": 60})
    handle = await fabric.submit(body)
    async with asyncio.timeout(30):
        while not ledger.lines(id=body["id"], event="start"):
            await asyncio.sleep(0.05)

    offset.write_text(jump)
    result = await handle.result()

    capsule = Capsule.open(result.capsule)
    assert len(ledger.lines(id=body["id"], event="start")) == 1
    assert [moment.state for moment in result.timeline] == [
        *("QUEUED", "PREPARING", "RUNNING", "COLLECTING", "SUCCEEDED")
    ]
    assert capsule.verify() == []
    assert len(result.attempts) == 1
