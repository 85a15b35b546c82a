"""The environments of a host: listed, removed when nothing uses them, never one in use."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.bodies import process
from tests.environments.packages import TinyPackage

if TYPE_CHECKING:
    from pathlib import Path

    from temporal_fabric import Fabric
    from temporal_fabric.testing.environment import FabricEnvironment

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def _env(environment: FabricEnvironment, *args: str) -> Any:
    done = await asyncio.to_thread(environment.cli, "env", *args, "-o", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


async def test_one_in_use_stays(
    fabric: Fabric, environment: FabricEnvironment, tmp_path: Path
) -> None:
    """While an experiment has it the clean-up leaves it; afterwards it goes, and comes back."""
    package = TinyPackage(tmp_path)
    wanted = {"requirements": [package.requirement]}
    script = f"until test -e {tmp_path}/go; do sleep 0.2; done; python -c 'import tiny'"
    handle = await fabric.submit(process("sh", "-c", script, environment=wanted))
    async with asyncio.timeout(60):
        while (await handle.status(detail=False)).state != "RUNNING":
            await asyncio.sleep(0.1)

    (used,) = await _env(environment, "ls")
    kept = await _env(environment, "gc")
    (tmp_path / "go").touch()
    await handle.result()
    young = await _env(environment, "gc", "--older-than", "1h")
    tried = await _env(environment, "gc", "--dry-run")
    still = await _env(environment, "ls")
    gone = await _env(environment, "gc")
    again = await fabric.submit(process("python", "-c", "import tiny", environment=wanted))

    assert used["used_by"] == [f"default/{handle.id}"]
    assert (used["state"], used["packages"]) == ("ready", 1)
    assert used["made_of"].startswith("python 3.")
    assert used["size"] > 1000
    assert kept["removed"] == young["removed"] == []
    assert [one["digest"] for one in tried["removed"]] == [used["digest"]]
    assert [one["digest"] for one in still] == [used["digest"]]
    assert [one["digest"] for one in gone["removed"]] == [used["digest"]]
    assert (await again.result()).state == "SUCCEEDED"


async def test_what_is_built_stays_and_what_broke_goes(
    fabric: Fabric, environment: FabricEnvironment, tmp_path: Path
) -> None:
    """An environment under construction is left alone; rubbish of a killed one is not."""
    await _env(environment, "gc")
    package = TinyPackage(tmp_path, seconds=60)
    handle = await fabric.submit(
        process("true", environment={"requirements": [package.requirement]})
    )
    async with asyncio.timeout(60):
        while not package.builds():
            await asyncio.sleep(0.1)
    broken = environment.settings.environments / ("0" * 64)
    (broken / "bin").mkdir(parents=True)
    left = broken.with_suffix(".archive")
    left.write_bytes(b"half of an archive")

    listed = {one["state"]: one for one in await _env(environment, "ls")}
    removed = await _env(environment, "gc")
    after = await _env(environment, "ls")
    await handle.cancel()

    assert listed.keys() == {"building", "broken"}
    assert [one["digest"] for one in removed["removed"]] == ["0" * 64]
    assert [one["state"] for one in after] == ["building"]
    assert not left.exists()


async def test_a_duration_that_is_none(environment: FabricEnvironment) -> None:
    """A word that is no duration is refused, and nothing is removed."""
    done = await asyncio.to_thread(environment.cli, "env", "gc", "--older-than", "soon")

    assert (done.returncode, "30d" in done.stderr) == (2, True)
