"""The worker dies five times between two objects of S3: one result, nothing half to be seen.

20 MB here; ``make campaign`` moves 200 MB, and then the worker's memory says something too.
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from temporal_fabric import Capsule, Fabric
from temporal_fabric.connection import connect
from temporal_fabric.failpoints import FailPoint
from temporal_fabric.testing.faults import FailPoints
from tests.bodies import shell

if TYPE_CHECKING:
    from collections.abc import Generator

    from temporal_fabric.outcomes import ExperimentResult
    from temporal_fabric.testing.environment import FabricEnvironment
    from tests.artifacts.servers import S3Server

SIZE = 200_000_000 if os.environ.get("FABRIC_CAMPAIGN") else 20_000_000
SEED = 1
MEMORY = 150_000_000
"""What the transfers may add to a worker, whatever the size: pieces on their way, no objects."""

# Where it dies: whether the capsule is sealed by then, the output bears its name, and an upload
# has not ended.
DEATHS = {
    FailPoint.STAGING_HALF: (False, False, False),
    FailPoint.STAGING_NAMED: (False, False, False),
    FailPoint.DELIVERY_HALF: (False, False, True),
    FailPoint.CAPSULE_SEALED: (True, False, False),
    FailPoint.DELIVERY_NAMED: (True, True, False),
}
_IN, _OUT = "data/in", "data/out"


class _Watch:
    """Lists the bucket without a pause; notes what must never be seen."""

    def __init__(self, s3: S3Server, capsules: Path) -> None:
        self._s3 = s3
        self._capsules = capsules
        self.wrong: list[str] = []
        self.listings = 0

    def look(self) -> None:
        sizes = self._s3.sizes()
        self.listings += 1
        if _OUT not in sizes:
            return
        if not self.sealed():
            self.wrong.append("named before the commit")
        if sizes[_OUT] != SIZE:
            self.wrong.append(f"{sizes[_OUT]} bytes under the final name")

    def sealed(self) -> bool:
        return bool(list(self._capsules.glob("*/*/*/manifest.toml")))


@contextmanager
def _watching(watch: _Watch) -> Generator[None]:
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            watch.look()
            time.sleep(0.02)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _peak(env: FabricEnvironment) -> int:
    """Return the most memory in bytes that the worker has had so far."""
    assert env.worker is not None
    lines = Path(f"/proc/{env.worker.pid}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def _body(digest: str) -> dict[str, Any]:
    return shell(
        "sha256sum < $FABRIC_INPUT_DIR/d; cp $FABRIC_INPUT_DIR/d $FABRIC_OUTPUT_DIR/d",
        inputs=[{"source_uri": f"s3://bucket/{_IN}", "mount_path": "d", "sha256": digest}],
        outputs=[{"source_path": "d", "target_uri": f"s3://bucket/{_OUT}"}],
    )


@pytest.mark.timeout(600)
async def test_deaths_between_two_objects(own_environment: FabricEnvironment, s3: S3Server) -> None:
    """Killed on the way in and out, before and after the name: one whole object, one capsule."""
    env, data = own_environment, random.Random(SEED).randbytes(SIZE)
    digest, points = hashlib.sha256(data).hexdigest(), FailPoints(env.home / "points")
    env.env |= s3.env | points.env
    s3.put(_IN, data)
    watch, peaks = _Watch(s3, env.home / "capsules"), list[int]()
    seen: dict[FailPoint, tuple[bool, bool, bool]] = {}
    for point in DEATHS:
        points.arm(point)
    env.start_worker()
    idle = _peak(env)
    fabric = Fabric(await connect(env.settings, address=env.address), env.settings)

    with _watching(watch):
        handle = await fabric.submit(_body(digest))
        for point in DEATHS:
            await points.reached(point, 120)
            seen[point] = (watch.sealed(), _OUT in s3.sizes(), bool(s3.unfinished()))
            peaks.append(_peak(env))
            env.kill_worker()
            env.start_worker()
        result = await handle.result()
        peaks.append(_peak(env))

    assert seen == DEATHS
    assert watch.wrong == []
    _assert_one_result(result, digest)
    assert (s3.objects(), s3.unfinished()) == ({_IN: data, _OUT: data}, [])
    assert max(peaks) - idle < MEMORY
    print(
        f"{SIZE} bytes; {watch.listings} listings; MB of memory:",
        *(p // 10**6 for p in (idle, *peaks)),
    )


def _assert_one_result(result: ExperimentResult, digest: str) -> None:
    capsule = Capsule.open(result.capsule)
    assert (result.state, result.epoch, len(result.attempts)) == ("SUCCEEDED", 1, 1)
    assert result.attempts[0].inputs[0].sha256 == result.outputs[0].sha256 == digest
    assert capsule.read("logs/1/stdout.log") == f"{digest}  -\n".encode()
    assert capsule.verify() == []
