"""What an experiment enters and tells, read live, afterwards, from afar and without a server."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from temporal_fabric import Capsule, Fabric
from temporal_fabric.clock import stamp
from temporal_fabric.config import Settings
from temporal_fabric.connection import connect
from temporal_fabric.messages import SEALED_EVENTS, ReadInput
from tests.bodies import shell

if TYPE_CHECKING:
    from pathlib import Path

    from temporal_fabric.handle import ExperimentHandle
    from temporal_fabric.testing.environment import FabricEnvironment

pytestmark = pytest.mark.asyncio(loop_scope="module")

# The first attempt fails behind its second event; metrics stand between what is told. Lines
# carry their own time: of one without, the recorder takes the time at which it was read.
_SCRIPT = """
say() { echo "{\\"at\\": $(date +%s.%3N), $1}" >> $FABRIC_TELEMETRY; sleep 0.8; }
say '"stage": "load", "loss": 2'
say '"event": "read", "file": "a.csv", "step": 1'
test $FABRIC_ATTEMPT = 2 || exit 3
say '"stage": "fit", "event": "began", "progress": 0.5'
say '"loss": 1'
say '"event": "done"'
"""

_ONE = [("stage", {"stage": "load"}), ("event", {"event": "read", "file": "a.csv", "step": 1})]
_TWO = [
    *_ONE,
    ("stage", {"stage": "fit"}),
    ("event", {"event": "began"}),
    ("event", {"event": "done"}),
]


def _body() -> dict[str, Any]:
    return shell(_SCRIPT, retry={"max_attempts": 2, "initial_interval_s": 0.1})


def _story(events: list[dict[str, Any]]) -> list[Any]:
    """Return states and what was told, epoch by epoch, without times."""
    return [
        event["state"] if event["event"] == "state" else (event["event"], event["detail"])
        for event in events
        if event["event"] != "heartbeat"
    ]


_WHOLE = [
    *("QUEUED", "PREPARING", "RUNNING", *_ONE, "COLLECTING", "RETRYING"),
    *("PREPARING", "RUNNING", *_TWO, "COLLECTING", "SUCCEEDED"),
]


async def _all(handle: ExperimentHandle) -> list[dict[str, Any]]:
    return [event async for event in handle.events()]


async def test_the_same_story_live_and_afterwards(
    fabric: Fabric, environment: FabricEnvironment
) -> None:
    """A reader from the first moment, a late one and the capsule's give the same lines."""
    handle = await fabric.submit(_body())
    reader = asyncio.create_task(
        asyncio.to_thread(environment.cli, "events", handle.id, "-o", "json")
    )
    seen = [(datetime.now(UTC), event) async for event in handle.events()]
    live = (await reader).stdout

    afterwards = await asyncio.to_thread(environment.cli, "events", handle.id, "-o", "json")
    text = await asyncio.to_thread(environment.cli, "events", handle.id)

    first = next(at for at, event in seen if event["event"] == "stage")
    assert _story([event for _, event in seen]) == _WHOLE
    assert live == afterwards.stdout
    assert _story([json.loads(line) for line in live.splitlines()]) == _WHOLE
    assert stamp(first) < seen[-1][1]["at"], "the first stage was told only at the end"
    assert "read  file=a.csv  step=1" in text.stdout


async def test_from_another_host(environment: FabricEnvironment, tmp_path: Path) -> None:
    """A client that shares no disk with the worker reads the same, and the sealed table."""
    elsewhere = Settings(home=tmp_path, store=(tmp_path / "store").as_uri())
    client = await connect(elsewhere, address=environment.address)
    handle = await Fabric(client, elsewhere).submit(_body())

    live = await _all(handle)
    status = await handle.status()
    asked = ReadInput(handle.tenant, handle.id, 2, SEALED_EVENTS, wait=False)
    answer = await handle.read(status.backend, asked)

    table = Capsule.open(status.capsule).folder / "events.parquet"
    assert _story(live) == _WHOLE
    assert base64.b64decode(answer.data) == table.read_bytes()


@pytest.mark.asyncio(loop_scope="function")
async def test_without_worker_and_server(
    running: tuple[FabricEnvironment, Fabric], tmp_path: Path
) -> None:
    """With the server gone the store tells it; a far client without a worker is told so."""
    env, fabric = running
    handle = await fabric.submit(_body())
    result = await handle.result()
    whole = await _all(handle)
    capsule = Capsule.open(result.capsule).folder
    elsewhere = Settings(home=tmp_path, store=(tmp_path / "store").as_uri())
    client = await connect(elsewhere, address=env.address)
    env.stop_worker()

    capsule.rename(tmp_path / "capsule")  # what a host without this disk sees
    far = await _all(Fabric(client, elsewhere).get(handle.id))
    (tmp_path / "capsule").rename(capsule)
    if env.server is not None:
        env.server.stop()
        env.server = None
    recorded = await asyncio.to_thread(env.cli, "events", handle.id, "-o", "json")

    assert [json.loads(line) for line in recorded.stdout.splitlines()] == whole
    assert "read from the store" in recorded.stderr
    assert [event["event"] for event in far if event["event"] != "state"] == ["missing"]
