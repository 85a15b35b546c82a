"""A step that fails, a cancelled run, a request that does not fit: on a device that moves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import yaml

from temporal_fabric import ExperimentCanceled, ExperimentFailed
from tests.lab.requests import body

if TYPE_CHECKING:
    from pathlib import Path

    from temporal_fabric import Fabric
    from temporal_fabric.testing.environment import FabricEnvironment
    from tests.lab.conftest import Device

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_step_that_fails_is_undone_newest_first(
    lab: tuple[FabricEnvironment, Fabric], device: Device
) -> None:
    """The device's own error ends the run; what was done before is undone, and nothing else."""
    env, fabric = lab
    with device.watched() as moved:
        handle = await fabric.submit(body("clogged", sample={"Well": "H12"}))
        with pytest.raises(ExperimentFailed) as caught:
            await handle.result()

    failed = caught.value
    assert (failed.reason, failed.exit_code) == ("EXIT_CODE", 5)
    assert "step 5 `sample` failed: Clogged" in str(failed)
    done = ["pick", "move", "lid", "dispense", "dispense"]
    assert moved == [*done, "park", "put back"]
    logs = env.cli("logs", "clogged").stdout
    assert "undo to-deck: done" in logs
    assert logs.index("undo to-deck") < logs.index("undo pick")
    told = env.cli("capsule", "query", "FROM telemetry WHERE name = 'Dispensed'", "clogged").stdout
    assert "25.0" in told, "intermediate responses are telemetry"


async def test_a_cancelled_run_ends_its_step_and_is_undone(
    lab: tuple[FabricEnvironment, Fabric], device: Device
) -> None:
    """Cancelling stops the present command and undoes what was done, newest first."""
    _, fabric = lab
    with device.watched() as moved:
        before = len(device.moved())
        handle = await fabric.submit(body("cancelled"))
        async with asyncio.timeout(30):
            while len(device.moved()) < before + 4:
                await asyncio.sleep(0.02)
        await handle.cancel()
        with pytest.raises(ExperimentCanceled):
            await handle.result()
    assert moved[:3] == ["pick", "move", "lid"]
    assert moved[-2:] == ["park", "put back"]
    assert "incubate" not in moved


async def test_what_a_device_cannot_do_is_refused_with_its_limits(
    lab: tuple[FabricEnvironment, Fabric], device: Device, tmp_path: Path
) -> None:
    """Feature, command, parameter, limit and unit are checked before anything moves."""
    env, _ = lab
    wrong = body(
        "wrong",
        pick={"Position": "roof"},
        sample={"Volume": {"value": 900, "unit": "µL"}},
        incubate={"Temperature": {"value": 310, "unit": "K"}},
    )
    wrong["payload"]["lab"]["steps"][1]["command"] = "Mov"
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(wrong, allow_unicode=True))
    with device.watched() as moved:
        planned, refused = env.cli("plan", str(path)), env.cli("submit", str(path), "--follow")

    assert planned.returncode == refused.returncode == 2
    for said in ("'roof'", "stack, deck", "at most 200.0 µL", "takes it in °C", "Mov", "Move"):
        assert said in planned.stdout + planned.stderr, planned.stdout + planned.stderr
    assert moved == []


async def test_a_device_that_is_away_says_so(
    lab: tuple[FabricEnvironment, Fabric], device: Device
) -> None:
    """`backends` and `doctor` tell why a device cannot be used, and what to do."""
    env, _ = lab
    device.kill()
    try:
        shown = env.cli("backends")
    finally:
        device.start()
    assert f"127.0.0.1:{device.port}" in shown.stdout, shown
    assert "start the device's SiLA server" in shown.stdout
