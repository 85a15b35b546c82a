"""``limits.log_bytes`` from a request to its capsule."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from temporal_fabric import Capsule, RequestRejected
from temporal_fabric.launcher.log_cap import LEAST_BYTES, why_not
from tests.bodies import python, shell

if TYPE_CHECKING:
    from pathlib import Path

    from temporal_fabric.client import Fabric
    from temporal_fabric.testing.environment import FabricEnvironment

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1 << 20

FLOOD = """
import os
mark = b"::fabric:: "
os.write(1, mark + b'{"loss": 1}\\n')
for number in range(100):
    os.write(1, b"%d " % number + b"x" * 65536 + b"\\n")
os.write(1, mark + b'{"loss": 2}\\n')
os.write(1, b"the end\\n")
"""


@pytest.fixture(autouse=True)
def file_system(environment: FabricEnvironment) -> None:
    """Skip where files cannot be cut."""
    if reason := why_not(str(environment.home)):
        pytest.skip(reason)


async def test_a_flood_is_cut_and_told(environment: FabricEnvironment, tmp_path: Path) -> None:
    """Log, telemetry around the hole, an event and a count: nothing is cut in silence."""
    body = python(FLOOD, limits={"log_bytes": MIB})
    (tmp_path / "request.json").write_text(json.dumps(body))

    done = environment.cli("submit", "--follow", str(tmp_path / "request.json"))
    told = json.loads(environment.cli("result", body["id"], "-o", "json").stdout)
    printed = environment.cli("logs", body["id"]).stdout
    events = environment.cli("events", body["id"]).stdout
    asked = ("SELECT value FROM telemetry WHERE name = 'loss' ORDER BY seq", body["id"])
    rows: Any = json.loads(environment.cli("capsule", "query", *asked, "-o", "json").stdout)

    capsule = Capsule.open(told["capsule"])
    log = (capsule.folder / "logs/1/stdout.log").read_text()
    dropped = told["attempts"][0]["log_dropped_bytes"]
    assert done.returncode == 0, done.stderr
    assert capsule.verify() == []
    assert dropped > 5 * MIB
    assert len(log) < MIB
    assert log.startswith("::fabric:: ")
    assert log.endswith("x\n::fabric:: " + '{"loss": 2}\nthe end\n')
    assert f"[temporal-fabric: {dropped} bytes left out]" in log
    assert printed == log
    assert events.count("truncated") == 1, events
    assert [row["value"] for row in rows] == [1, 2]
    assert "rejected" not in events


async def test_a_cap_that_cannot_be_held_is_refused(fabric: Fabric) -> None:
    """Less than the blocks that are cut is E_ISOLATION, with the least that works."""
    with pytest.raises(RequestRejected) as caught:
        await fabric.submit(shell("true", limits={"log_bytes": 1000}))

    assert caught.value.code == "E_ISOLATION"
    assert f"set /limits/log_bytes to {LEAST_BYTES}" in str(caught.value)
