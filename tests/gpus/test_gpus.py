"""One worker with two devices: what is told, what is refused, what a payload gets."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from temporal_fabric import RequestRejected
from temporal_fabric.capsule.manifest import Manifest
from temporal_fabric.requests.models import ExecutionRequest
from temporal_fabric.testing.nvml import StandIn
from tests.bodies import python

if TYPE_CHECKING:
    from collections.abc import Iterator

    from temporal_fabric import Fabric
    from temporal_fabric.messages import PlanAnswer
    from temporal_fabric.testing.environment import FabricEnvironment
    from temporal_fabric.testing.nvml import StandInNvml
    from tests.gpus.holding import Holding

pytestmark = pytest.mark.asyncio(loop_scope="module")

A = StandIn("GPU-aaaa", minor=240)
B = StandIn("GPU-bbbb", minor=241)


@pytest.fixture(autouse=True)
def _two(nvml: StandInNvml) -> None:
    nvml.show(A, B)


async def _plan(fabric: Fabric, body: dict[str, Any]) -> PlanAnswer:
    answer = await fabric.plan(ExecutionRequest.from_mapping(body))
    assert answer is not None
    return answer


async def test_a_payload_has_its_devices_and_no_others(
    fabric: Fabric, holding: Holding, nvml: StandInNvml
) -> None:
    """Two devices for one, none for the other; result, capsule and reservations say which."""
    holding.go()
    both = await (await fabric.submit(holding.body(2))).result()
    none = await (await fabric.submit(python(_SEES_NONE))).result()
    capsule = Path(both.capsule.removeprefix("file://"))
    manifest = Manifest.parse((capsule / "manifest.toml").read_bytes())

    assert both.state == none.state == "SUCCEEDED"
    assert holding.had == [(both.request_id, frozenset({"GPU-aaaa", "GPU-bbbb"}))]
    assert both.attempts[0].gpus == manifest.experiment["gpus"] == ["GPU-aaaa", "GPU-bbbb"]
    assert none.attempts[0].gpus == []
    assert list(nvml.reservations.glob("*.json")) == []


_SEES_NONE = """
import os
assert (os.environ['CUDA_VISIBLE_DEVICES'], os.environ['NVIDIA_VISIBLE_DEVICES']) == ('', 'void')
"""

WANTED = {
    "too many": (3, "needs 3 devices of type 'gpu', has 2", "resources/0/count to 2"),
    "another model": (
        {"model": "H100"},
        "with model 'H100', has: NVIDIA A100-SXM4-80GB (85.9 GB)",
        "drop /requirements/resources/0/model",
    ),
    "a name's beginning": ({"model": "A10"}, "with model 'A10'", "resources/0/model"),
    "more memory": ({"memory_gb": 100}, "with 100 GB", "resources/0/memory_gb"),
}


@pytest.mark.parametrize("case", WANTED)
async def test_what_is_not_there_is_refused_with_the_nearest_change(
    case: str, fabric: Fabric
) -> None:
    """More devices, another model or more memory than any device has: nothing is started."""
    gpu, reason, change = WANTED[case]
    body = python("pass", requirements={"resources": {"gpu": gpu}})
    plan = await _plan(fabric, body)
    with pytest.raises(RequestRejected) as refused:
        await fabric.submit(body)

    assert plan.backend == ""
    assert reason in plan.verdicts[0].reasons[0]
    assert change in plan.nearest_change
    assert refused.value.code == "E_NO_BACKEND"


async def test_facts_can_be_constrained(fabric: Fabric) -> None:
    """Number, model and memory of the devices are labels; two entries are served together."""
    gpu = {"model": "a100 80gb", "memory_gb": 80}
    meets = ["gpu.count >= 2 && gpu.model.contains('A100') && gpu.memory > 80.0"]
    fitting = {"resources": [{"gpu": 1}, {"gpu": gpu}], "constraints": meets}
    plan = await _plan(fabric, python("pass", requirements=fitting))
    not_met = await _plan(fabric, python("pass", requirements={"constraints": ["gpu.count > 2"]}))
    too_many = {"resources": [{"gpu": 2}, {"gpu": gpu}]}
    together = await _plan(fabric, python("pass", requirements=too_many))
    (told,) = await fabric.backends()

    assert plan.backend
    assert "gpu.count > 2: not met" in not_met.verdicts[0].reasons[0]
    assert together.verdicts[0].reasons == ["needs 3 devices of type 'gpu' in all, has 2"]
    assert told.labels["gpu.memory"] == 85.9


async def test_a_device_that_cannot_be_trusted_is_not_given(
    environment: FabricEnvironment, fabric: Fabric, holding: Holding, nvml: StandInNvml
) -> None:
    """Divided, with broken memory, or used by others: each is told, the others go on."""
    mig, broken = StandIn("GPU-mig", mig=True), StandIn("GPU-ecc", errors=3)
    nvml.show(mig, StandIn("GPU-used", process=4711), broken, A)
    many = await _plan(fabric, holding.body(3))
    (told,) = await fabric.backends()
    table = environment.cli("backends").stdout
    doctor = environment.cli("doctor", "-o", "json").stdout
    holding.go()
    result = await (await fabric.submit(holding.body(1))).result()

    assert "GPU-mig is not given: it is divided (MIG)" in many.verdicts[0].reasons[0]
    assert "has 2; " in many.verdicts[0].reasons[0]
    states = {row["id"]: row["state"] for row in told.gpus}
    assert "process 4711" in states["GPU-used"]
    assert "3 errors of its memory" in states["GPU-ecc"]
    assert states["GPU-aaaa"] == "free"
    assert "1 of 4 free" in table
    assert "GPU-ecc: not given: 3 errors" in table
    (check,) = [row for row in json.loads(doctor) if row["name"] == "GPUs"]
    assert check["verdict"] == "warn"
    assert "nvidia-smi -mig 0" in check["remedy"]
    assert result.attempts[0].gpus == ["GPU-aaaa"]


async def test_no_gpu_is_said_with_its_reason(
    environment: FabricEnvironment, fabric: Fabric, nvml: StandInNvml
) -> None:
    """Without driver, and with one that is not loaded, nothing is started and all say why."""
    (nvml.reservations.parent / "devices").unlink()
    plan = await _plan(fabric, python("pass", requirements={"resources": {"gpu": 1}}))
    (told,) = await fabric.backends()
    table = environment.cli("backends").stdout
    without = {"LD_LIBRARY_PATH": ""}
    environment.env |= without
    try:
        doctor = environment.cli("doctor").stdout
    finally:
        environment.env |= nvml.env

    why = "the NVIDIA driver is installed and not loaded"
    assert f"needs a resource of type 'gpu', has none: {why}" in plan.verdicts[0].reasons[0]
    assert told.no_gpus.startswith(why)
    assert "gpu.count" not in told.labels
    assert f"has no GPU: {why}" in table
    assert "none: no NVIDIA driver is installed" in doctor


@pytest.fixture
def device_files() -> Iterator[list[str]]:
    """Files of both devices, which are there for this test."""
    made = list[str]()
    try:
        for one in (A, B):
            os.mknod(path := f"/dev/nvidia{one.minor}", 0o20666, os.makedev(1, 3))
            made.append(path)
        yield made
    except PermissionError:
        pytest.skip("this user cannot make device files")
    finally:
        for path in made:
            Path(path).unlink()


async def test_a_sandbox_has_the_files_of_its_devices_alone(
    environment: FabricEnvironment, fabric: Fabric, device_files: list[str]
) -> None:
    """Of two device files only that of the device it was given is visible inside."""
    script = "import glob, sys; open(sys.argv[1], 'w'); print(glob.glob('/dev/nvidia2*'))"
    body = python(script, isolation="sandbox", requirements={"resources": {"gpu": 1}})
    body["payload"]["process"]["command"].append(device_files[0])
    result = await (await fabric.submit(body)).result()
    said = environment.cli("logs", result.request_id).stdout

    assert result.attempts[0].gpus == [A.uuid]
    assert f"['{device_files[0]}']" in said
