"""Experiments on Docker, from the command line, on a real server and a real engine."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from temporal_fabric import Capsule
from temporal_fabric.testing.docker_daemon import IMAGE
from temporal_fabric.testing.environment import FabricEnvironment
from tests import portable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from temporal_fabric.testing.docker_daemon import DockerDaemon

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
"""Columns of telemetry that differ from run to run, whatever a payload writes."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def both(docker: DockerDaemon) -> AsyncIterator[FabricEnvironment]:
    """A worker with a local backend and one on Docker."""
    config = f"""
[backends.local]
slots = 2

[backends.docker]
kind = "docker"
slots = 4

[backends.docker.options]
host = "{docker.host}"
image = "{IMAGE}"
images = ["fabric/*"]
pull = false
"""
    async with FabricEnvironment.fresh(config=config) as found:
        yield found


def submit(environment: FabricEnvironment, *args: str, body: object = None) -> dict[str, Any]:
    """Submit from the repository's folder and return the result at the end.

    Args:
        environment: Where to.
        args: Of the command line.
        body: What the command reads where it is told to read standard input.
    """
    done = subprocess.run(
        [sys.executable, "-m", "temporal_fabric.cli", "submit", "--follow", "-o", "json", *args],
        cwd=ROOT,
        env=environment.env | {"TEMPORAL_ADDRESS": environment.address},
        input="" if body is None else json.dumps(body),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])
    return found


async def test_one_request_on_both(both: FabricEnvironment, tmp_path: Path) -> None:
    """The portable example gives the same outputs and telemetry as a process and in a container."""
    given = portable.make_input(tmp_path)
    local = portable.run_on("local", both, given)
    docker = portable.run_on("docker", both, given)

    assert docker == local
    assert set(docker[0]) == portable.OUTPUTS
    assert len(docker[1]) == portable.ROWS


async def test_a_container(both: FabricEnvironment) -> None:
    """The container example runs in its image; its output is kept and the image recorded."""
    result = submit(
        both,
        str(EXAMPLES / "container.yaml"),
        "--set",
        f"payload.container.image={IMAGE}",
    )
    assert result["state"] == "SUCCEEDED", result
    capsule = Capsule.open(result["capsule"])
    assert capsule.output("primes").read_bytes() == portable.PRIMES
    recorded = capsule.read("logs/1/environment.txt").decode()
    assert f"image {IMAGE}\nid sha256:" in recorded


async def test_a_process_in_an_image_of_its_own(both: FabricEnvironment) -> None:
    """`environment.image` runs a process in that image, and keeps it from other backends."""
    process = {"command": ["sh", "-c", "cat /etc/passwd > /output/users"]}
    body = {
        "payload": {"process": process | {"outputs": [{"source_path": "/output/users"}]}},
        "environment": {"image": IMAGE},
    }
    result = submit(both, "-", "--set", "id=imaged", body=body)

    assert result["state"] == "SUCCEEDED", result
    assert result["backend"].startswith("docker@")
    users = Capsule.open(result["capsule"]).output("users").read_text()
    assert (
        users == "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/sh\n"
    )


async def test_a_worker_dies_and_the_container_goes_on(
    both: FabricEnvironment, docker: DockerDaemon
) -> None:
    """The worker is killed: the next one adopts the container, and the log is whole."""
    code = "import time\nfor n in range(40):\n    print(n, flush=True)\n    time.sleep(0.1)"
    body = {"payload": {"process": {"command": ["python3", "-c", code]}}, "backends": ["docker"]}
    asked = asyncio.create_task(
        asyncio.to_thread(submit, both, "-", "--set", "id=adopted", body=body)
    )
    while "fabric-adopted-1" not in docker.client("ps", "--format", "{{.Names}}"):
        await asyncio.sleep(0.1)
    both.kill_worker()
    both.start_worker()
    result = await asked

    assert (result["state"], result["epoch"]) == ("SUCCEEDED", 1), result
    log = Capsule.open(result["capsule"]).read("logs/1/stdout.log").decode()
    assert log == "".join(f"{n}\n" for n in range(40))
    # The container is forgotten at the seal.
    assert "fabric-adopted" not in docker.client("ps", "--all", "--format", "{{.Names}}")


async def test_a_cancelled_container_is_gone(both: FabricEnvironment, docker: DockerDaemon) -> None:
    """A cancelled experiment is CANCELED once its container has ended, TERM or not."""
    code = "trap '' TERM; while :; do sleep 1; done"
    body = {
        "id": "stubborn",
        "backends": ["docker"],
        "payload": {"process": {"command": ["sh", "-c", code]}},
        "limits": {"grace_s": 1},
    }
    asked = asyncio.create_task(asyncio.to_thread(submit, both, "-", body=body))
    while "fabric-stubborn-1" not in docker.client("ps", "--format", "{{.Names}}"):
        await asyncio.sleep(0.1)
    both.cli("cancel", "stubborn", "--address", both.address)
    result = await asked

    assert result["state"] == "CANCELED", result
    assert "fabric-stubborn" not in docker.client("ps", "--format", "{{.Names}}")


async def test_doctor_and_backends_show_it(both: FabricEnvironment) -> None:
    """`doctor` says what the engine is, `backends` what it does; away, both say what to do."""
    checks = _checks(both)
    shown = both.cli("backends", "-o", "json", "--address", both.address).stdout
    (told,) = (row for row in json.loads(shown) if row["kind"] == "docker")
    file = both.home / "fabric.toml"
    before = file.read_text()
    file.write_text(before.replace("docker.sock", "missing.sock"))
    away = _checks(both)
    file.write_text(before.replace("pull = false", "pull = 1\nimage_s = 2"))
    wrong = _checks(both)
    file.write_text(before)

    assert checks["backend docker"]["verdict"] == "ok", checks
    assert "engine 2" in checks["backend docker"]["detail"]
    assert (told["health"], told["slots"]) == ("ok", 4)
    assert away["backend docker"]["verdict"] == "fail"
    assert away["backend docker"]["remedy"].startswith("start Docker")
    assert {"backends/docker/options/pull", "backends/docker/options/image_s"} <= set(wrong)


def _checks(environment: FabricEnvironment) -> dict[str, dict[str, Any]]:
    done = environment.cli("doctor", "-o", "json", "--address", environment.address)
    return {check["name"]: check for check in json.loads(done.stdout)}
