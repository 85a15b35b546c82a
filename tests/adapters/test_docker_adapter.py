"""What the Docker adapter promises beyond the contract, on a real engine."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from temporal_fabric.adapters.contract import JobHandle, Phase
from temporal_fabric.adapters.docker_calls import Engine
from temporal_fabric.adapters.docker_options import read_options
from temporal_fabric.adapters.docker_records import DockerRecord
from temporal_fabric.errors import (
    BackendUnknown,
    PermanentBackendError,
    RequestRejected,
    TransientBackendError,
)
from temporal_fabric.testing.bench import Fault
from temporal_fabric.testing.conformance_starting import began, ended
from temporal_fabric.testing.docker_daemon import IMAGE, DockerUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from temporal_fabric.adapters.contract import AttemptKey, JobStatus
    from temporal_fabric.testing.docker_bench import DockerBench
    from temporal_fabric.testing.docker_daemon import DockerDaemon

pytestmark = pytest.mark.asyncio(loop_scope="module")

_PROBE = """
status = dict(line.split(':\\t', 1) for line in open('/proc/self/status').read().splitlines()
              if ':\\t' in line)
def write(path):
    try:
        open(path, 'w').close()
        return True
    except OSError:
        return False
def read(*paths):
    for path in paths:
        if os.path.exists('/sys/fs/cgroup/' + path):
            return open('/sys/fs/cgroup/' + path).read().strip()
seen = {
    'caps': status['CapEff'], 'bounding': status['CapBnd'], 'new': status['NoNewPrivs'],
    'seccomp': status['Seccomp'], 'uid': os.getuid(), 'links': os.listdir('/sys/class/net'),
    'root': write('/etc/x'), 'tmp': write('/tmp/x'), 'input': write('/input/x'),
    'task': write('/task/x'), 'output': write('/output/x'), 'checkpoints': write('/checkpoints/x'),
    'pids': read('pids/pids.max', 'pids.max'), 'pid': os.getpid() < 20,
    'memory': read('memory/memory.limit_in_bytes', 'memory.max'),
    'sockets': [p for p in ('/var/run/docker.sock', '/run/docker.sock') if os.path.exists(p)],
}
open('/output/seen.json', 'w').write(json.dumps(seen))
"""


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def _settled(docker_bench: DockerBench) -> Any:
    """End what a test has left behind."""
    yield
    await docker_bench.settle()


async def _run(bench: DockerBench, code: str, **more: Any) -> tuple[AttemptKey, JobStatus]:
    key = bench.key()
    await bench.adapter().submit(bench.attempt(key, code, **more))
    return (key, await ended(bench.adapter(), key))


async def test_a_container_may_do_little(docker_bench: DockerBench) -> None:
    """Without a word in the request a payload has no rights, no network and no root to write to."""
    limits = {"memory_bytes": 128 * 2**20, "pids": 50}
    key, status = await _run(docker_bench, _PROBE, limits=limits)

    assert status.exit_code == 0
    seen = json.loads((docker_bench.place(key).output / "seen.json").read_text())
    assert seen == {
        "caps": "0" * 16,
        "bounding": "0" * 16,
        "new": "1",
        "seccomp": "2",
        "uid": 65534,
        "links": ["lo"],
        "root": False,
        "tmp": True,
        "input": False,
        "task": True,
        "output": True,
        "checkpoints": True,
        "pids": "51",
        "pid": True,
        "memory": str(128 * 2**20),
        "sockets": [],
    }


async def test_output_is_kept_as_it_was_written(docker_bench: DockerBench) -> None:
    """Bytes of both streams are in the attempt's folder, whatever they are."""
    code = """
sys.stdout.buffer.write(bytes(range(256)) * 300 + b'\\n')
sys.stderr.buffer.write(b'\\xff\\x00trouble\\n')
"""
    key, _ = await _run(docker_bench, code)

    place = docker_bench.place(key)
    assert place.stdout.read_bytes() == bytes(range(256)) * 300 + b"\n"
    assert place.stderr.read_bytes() == b"\xff\x00trouble\n"


async def test_a_job_outlives_its_engine(docker_bench: DockerBench, docker: DockerDaemon) -> None:
    """The engine is killed and comes back: the job goes on, its end and its output are whole."""
    bench, key = docker_bench, docker_bench.key()
    code = "for n in range(60):\n    print(n, flush=True)\n    report('line')\n    time.sleep(0.05)"
    adapter = bench.adapter()
    job = await adapter.submit(bench.attempt(key, code))
    waiting = asyncio.create_task(adapter.wait(job, 60.0))
    await began(bench, key, "line", 5)
    await asyncio.to_thread(docker.kill)
    with pytest.raises(BackendUnknown):
        await bench.adapter().find(key)
    await asyncio.to_thread(docker.start)
    await asyncio.gather(waiting, return_exceptions=True)
    status = await ended(bench.adapter(), key)

    assert (status.phase, status.exit_code) == (Phase.ENDED, 0)
    assert bench.place(key).stdout.read_text() == "".join(f"{n}\n" for n in range(60))
    assert bench.effects(key, "line") == 60


async def test_a_prohibition_survives_engine_and_worker(
    docker_bench: DockerBench, docker: DockerDaemon
) -> None:
    """What was terminated is refused also after the engine and its containers were lost."""
    bench, key = docker_bench, docker_bench.key()
    attempt = bench.attempt(key, "report('start'); time.sleep(60)")
    await bench.adapter().submit(attempt)
    await began(bench, key)
    await bench.adapter().terminate(key, 0.0)
    await asyncio.to_thread(docker.lose)

    with pytest.raises(PermanentBackendError, match="terminated"):
        await bench.adapter().submit(attempt)
    assert bench.effects(key, "start") == 1


async def test_a_start_that_comes_late_starts_nothing(
    docker_start_bench: DockerBench, docker: DockerDaemon
) -> None:
    """A container that was never seen to run cannot start once its attempt was given to another."""
    bench, key = docker_start_bench, docker_start_bench.key()
    attempt = bench.attempt(key, "report('start'); time.sleep(1)")
    lost = await bench.faulty("submit", Fault.LOST_REQUEST)
    with pytest.raises(TransientBackendError):
        await lost.submit(attempt)
    wanted = f"label=temporal-fabric.attempt={key}"
    first = docker.client("ps", "--all", "--quiet", "--filter", wanted).strip()
    assert (await bench.adapter().find(key)).phase is Phase.ABSENT
    DockerRecord.of(bench.folder / "docker" / "docker", key).revoke()
    with pytest.raises(DockerUnavailable, match="bind source path does not exist"):
        docker.client("start", first)
    await bench.adapter().submit(attempt)
    status = await ended(bench.adapter(), key)
    second = docker.client("ps", "--all", "--quiet", "--filter", wanted).strip()
    await bench.settle()

    assert status.exit_code == 0
    assert first != second
    assert bench.effects(key, "start") == 1


async def test_the_wall_limit_stands_still_in_a_pause(docker_bench: DockerBench) -> None:
    """A pause does not count: a job of two seconds ends well under a limit of four."""
    bench, key = docker_bench, docker_bench.key()
    adapter = bench.made_with()
    code = "report('start')\nfor _ in range(20): time.sleep(0.1)"
    job = await adapter.submit(bench.attempt(key, code, limits={"wall_s": 4}))
    await began(bench, key)
    assert (await adapter.pause(key)).paused
    status = await adapter.wait(job, 5.0)
    assert (status.phase, status.paused) == (Phase.RUNNING, True)
    await adapter.resume(key)
    status = await adapter.wait(job, 60.0)
    await adapter.aclose()

    assert (status.exit_code, status.reason) == (0, "")
    assert status.paused_s >= 5.0


async def test_a_return_value(docker_bench: DockerBench) -> None:
    """A Python function is called by the image's own interpreter."""
    bench, key = docker_bench, docker_bench.key()
    source = ["import sys", "def double(x): return [2 * x, sys.executable]"]
    python = {"entry_point": "f.py:double", "source": source, "args": [21]}
    attempt = bench.attempt(key, "", payload={"python": python})
    await bench.adapter().submit(attempt)
    status = await ended(bench.adapter(), key)

    assert status.exit_code == 0, bench.place(key).stderr.read_text()
    value = json.loads((bench.place(key).output / "return.json").read_text())
    assert value == [42, "/usr/bin/python3"]


async def test_an_image_that_is_not_listed_does_not_run(docker_bench: DockerBench) -> None:
    """Only listed images run, by reference or digest, and also if a name was moved meanwhile."""
    bench = docker_bench
    body = {"payload": {"container": {"image": "other/image:1", "command": ["true"]}}}
    request = bench.request("", **body)
    default, listed = bench.made_with(), bench.made_with(images=["other/*"], pull=True)
    verdicts = [await adapter.can_fulfill(request) for adapter in (default, listed)]
    key = bench.key()
    with pytest.raises(PermanentBackendError, match="not here"):
        await default.submit(bench.attempt(key, "", **body))
    for adapter in (default, listed):
        await adapter.aclose()

    assert [verdict.ok for verdict in verdicts] == [False, True]
    assert verdicts[0].shortfalls[0].code == "E_IMAGE"


async def test_an_image_is_allowed_by_its_digest(
    docker_bench: DockerBench, docker: DockerDaemon
) -> None:
    """A digest in the list stands for the image, whatever name it has."""
    docker.client("tag", IMAGE, "some/name:9")
    id_ = docker.client("image", "inspect", "--format", "{{.Id}}", IMAGE).strip()
    body = {"payload": {"container": {"image": "some/name:9", "command": ["true"]}}}
    request = docker_bench.request("", **body)
    for images, ok in (([id_], True), (["sha256:" + "0" * 64], False)):
        adapter = docker_bench.made_with(images=images)
        assert (await adapter.can_fulfill(request)).ok == ok
        await adapter.aclose()


async def test_devices_are_given_whole(docker_bench: DockerBench) -> None:
    """GPUs are counted; an engine that has none is told which, refuses, and leaves nothing."""
    bench, key = docker_bench, docker_bench.key()
    wanted = {"requirements": {"resources": {"gpu": 1}}}
    adapter = bench.made_with(gpus=["0", "1"])
    verdict = await adapter.can_fulfill(bench.request("", **wanted))
    many = {"requirements": {"resources": {"gpu": 3}}}
    too_many = await adapter.can_fulfill(bench.request("", **many))
    with pytest.raises(PermanentBackendError, match="device driver"):
        await adapter.submit(bench.attempt(key, "report('start')", **wanted))
    status = await adapter.find(key)
    await adapter.aclose()

    assert verdict.ok
    assert too_many.reasons == ("needs 3 devices of type 'gpu', has 2",)
    assert status.phase is Phase.ABSENT


async def test_what_a_container_is_not_given(docker_bench: DockerBench) -> None:
    """Network, secrets and cut logs are refused with what to change, all at once."""
    adapter = docker_bench.made_with()
    process = {"command": ["true"], "network": "outbound"}
    request = docker_bench.request(
        "",
        payload={"process": process},
        limits={"log_bytes": 2**20},
        secrets=[{"name": "TOKEN", "ref": "secret://env/TOKEN"}],
        environment={"requirements": ["numpy"]},
    )
    verdict = await adapter.can_fulfill(request)
    await adapter.aclose()

    told = "; ".join(verdict.reasons)
    for words in ("no payload a network", "no secrets", "not cut", "installs nothing"):
        assert words in told


async def test_a_followed_output_ends_with_its_adapter(docker_bench: DockerBench) -> None:
    """Closing an adapter ends its following of a job that goes on."""
    bench, key = docker_bench, docker_bench.key()
    adapter = bench.made_with()
    await adapter.submit(bench.attempt(key, "print('on', flush=True); time.sleep(120)"))
    await adapter.wait(JobHandle(key, ""), 0.5)
    async with asyncio.timeout(10.0):
        await adapter.aclose()

    assert (await bench.adapter().find(key)).phase is Phase.RUNNING


UNFIT: dict[str, tuple[str, dict[str, Any], str]] = {
    "too old": (r"GET /version", {"ApiVersion": "1.30"}, "speaks API 1.30, needs 1.41"),
    "no cgroup": (r"GET \S*/info", {"MemoryLimit": False}, "cannot limit memory"),
    "rootless": (r"GET \S*/info", {"SecurityOptions": ["name=rootless"]}, "runs with rootless"),
    "windows": (r"GET \S*/info", {"OSType": "windows"}, "runs windows containers"),
    "no init": (r"GET \S*/info", {"InitBinary": ""}, "has no init process"),
}


@pytest.mark.parametrize("case", UNFIT)
async def test_an_engine_that_is_unfit_is_told(case: str, docker_bench: DockerBench) -> None:
    """An engine that lacks something takes nothing, and the backend says what it lacks."""
    match, change, words = UNFIT[case]
    adapter = await docker_bench.made_where(match, change)
    told = await adapter.inventory()
    verdict = await adapter.can_fulfill(docker_bench.request("pass"))

    assert not told.healthy
    assert words in told.unusable
    assert words in verdict.reasons[0]
    assert verdict.shortfalls[0].change


async def test_a_default_image_that_is_not_here_is_told(docker_bench: DockerBench) -> None:
    """A backend without its image says so, and how to get it."""
    adapter = docker_bench.made_with(image="not/here:1")
    told = await adapter.inventory()
    await adapter.aclose()

    assert not told.healthy
    assert "docker pull not/here:1" in told.unusable


async def test_wrong_options_are_all_named() -> None:
    """Every wrong option is a problem with its path, at once."""
    wrong = {
        "host": "tcp://1.2.3.4:2375",
        "image": "",
        "images": "x",
        "pull": "yes",
        "mounts": ["/data", "/proc", "models"],
        "network": "host",
        "gpus": [0],
        "user": "0:0",
        "memory_bytes": 1,
        "cpus": 0,
        "privileged": True,
    }
    with pytest.raises(RequestRejected) as caught:
        read_options(wrong, "docker")

    paths = {problem.path for problem in caught.value.problems}
    assert paths == {f"/backends/docker/options/{name}" for name in wrong}


@pytest.fixture
def _nobody() -> Iterator[None]:
    """Let this process be nobody for a while."""
    os.seteuid(65534)
    yield
    os.seteuid(0)


@pytest.mark.usefixtures("_nobody")
async def test_no_permission_is_told(docker: DockerDaemon) -> None:
    """A worker that may not use the socket is told which group it belongs to."""
    engine = Engine(docker.host, 5.0)
    with pytest.raises(BackendUnknown, match=r"may not use .*: add the user to the group"):
        engine.about()


async def test_no_socket_is_told(tmp_path: Path) -> None:
    """Where there is no socket, or nobody listens at it, the remedy is to start Docker."""
    missing = Engine(f"unix://{tmp_path}/docker.sock", 5.0)
    with pytest.raises(BackendUnknown, match=r"there is no socket .*: start Docker"):
        missing.about()
