"""Payloads in containers of podman on a Slurm site: what they may do, and how they end."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import pwd
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from temporal_fabric import Capsule
from temporal_fabric.adapters.contract import Phase
from temporal_fabric.states import Reason
from temporal_fabric.testing.conformance_starting import began, ended
from temporal_fabric.testing.environment import FabricEnvironment
from temporal_fabric.testing.slurm_podman_bench import podman_options
from tests import leftovers
from tests.portable import EXAMPLES, PRIMES
from tests.slurm.conftest import backend_table

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from temporal_fabric.adapters.contract import AttemptKey, JobStatus
    from temporal_fabric.testing.slurm_podman_bench import SlurmPodmanBench
    from temporal_fabric.testing.slurm_site import SlurmSite

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
seen = {
    'caps': status['CapEff'], 'bounding': status['CapBnd'], 'new': status['NoNewPrivs'],
    'seccomp': status['Seccomp'], 'links': os.listdir('/sys/class/net'),
    'root': write('/etc/x'), 'tmp': write('/tmp/x'), 'input': write('/input/x'),
    'task': write('/task/x'), 'output': write('/output/x'), 'checkpoints': write('/checkpoints/x'),
    'pid': os.getpid() < 20, 'home': os.listdir('/home'), 'cwd': os.getcwd(),
    'env': sorted(name for name in os.environ if name.startswith(('SLURM', 'XDG_', 'CONTAINERS'))),
    'odd': os.environ['ODD'],
}
open('/output/seen.json', 'w').write(json.dumps(seen))
"""

_WAY_IN = ("sshd", " -I -S -c ")
"""What the fabric itself keeps on a login node between two calls."""

_STUBBORN = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        report('start')
        time.sleep(600)
    os._exit(0)
time.sleep(600)
"""


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def _settled(podman_bench: SlurmPodmanBench) -> AsyncIterator[None]:
    """End what a test has left behind."""
    yield
    await podman_bench.settle()


async def _run(bench: SlurmPodmanBench, code: str, **more: Any) -> tuple[AttemptKey, JobStatus]:
    key = bench.key()
    await bench.adapter().submit(bench.attempt(key, code, **more))
    return (key, await ended(bench.adapter(), key))


async def test_a_container_may_do_little(podman_bench: SlurmPodmanBench) -> None:
    """A payload has no rights, no network, no root to write to and no variable of the host."""
    body = podman_bench.body("")["payload"]["process"]
    odd = " a=b # 'c' \\n $HOME"
    env = body["env"] | {"ODD": odd, "CONTAINERS_CONF": "/output/none"}
    request = podman_bench.request(_PROBE).payload.process
    assert request is not None
    payload = {"process": body | {"command": list(request.command), "env": env}}
    key, status = await _run(podman_bench, "", payload=payload)

    assert status.exit_code == 0, status
    seen = json.loads((podman_bench.place(key).output / "seen.json").read_text())
    assert seen == {
        "caps": "0" * 16,
        "bounding": "0" * 16,
        "new": "1",
        "seccomp": "2",
        "links": ["lo"],
        "root": False,
        "tmp": True,
        "input": False,
        "task": True,
        "output": True,
        "checkpoints": True,
        "pid": True,
        "home": [],
        "cwd": "/task",
        "env": ["CONTAINERS_CONF"],
        "odd": odd,
    }


def _left(site: SlurmSite) -> list[str]:
    """Return what runs as the site's user besides its way in, and what podman keeps."""
    uid, found = pwd.getpwnam(site.user).pw_uid, list[str]()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and entry.stat().st_uid == uid:
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    kept = [str(path) for path in Path("/dev/shm").iterdir() if path.stat().st_uid == uid]  # noqa: S108
    kept += [str(path) for path in Path("/run/user").glob(f"{uid}*")]
    programs = [words for words in found if words and not any(way in words for way in _WAY_IN)]
    return [*programs, *kept, *(thing for thing in leftovers.things() if str(site.home) in thing)]


async def test_nothing_outlives_a_cancel(podman_bench: SlurmPodmanBench) -> None:
    """What ignores SIGTERM and has left its session twice is gone, with its runtime."""
    key, adapter = podman_bench.key(), podman_bench.adapter()
    await adapter.submit(podman_bench.attempt(key, _STUBBORN))
    await began(podman_bench, key)
    assert any("podman" in words for words in _left(podman_bench.site))

    status = await adapter.terminate(key, 0.5)

    assert (status.phase, status.signal) == (Phase.ENDED, 9), status
    await _nothing_left(podman_bench.site)
    await adapter.forget(key)


async def test_nothing_outlives_a_job_that_slurm_kills(podman_bench: SlurmPodmanBench) -> None:
    """After SIGKILL of every process of the job no container, mount or file of podman is there."""
    key, adapter = podman_bench.key(), podman_bench.adapter()
    job = await adapter.submit(podman_bench.attempt(key, _STUBBORN))
    await began(podman_bench, key)
    number = job.native_id.removeprefix("job ")
    podman_bench.site.run("scancel", "--full", "--signal=KILL", number)

    status = await ended(podman_bench.adapter(), key)

    assert status.exit_code is None
    assert status.phase is not Phase.RUNNING
    await _nothing_left(podman_bench.site)


async def _nothing_left(site: SlurmSite) -> None:
    for _ in range(200):
        if not _left(site):
            break
        await asyncio.sleep(0.1)
    assert _left(site) == []


async def test_what_is_not_there_is_said(podman_bench: SlurmPodmanBench) -> None:
    """An image that the site has not got, and a runtime that a node has not, are SETUP."""
    site = podman_bench.site
    said: list[str] = []
    away = {"image": "127.0.0.1:9/python:none", "pull": True}
    for options in ({"image": "python:none"}, {"runtime": "apptainer"}, away):
        adapter, key = podman_bench.make(**options), podman_bench.key()
        try:
            await adapter.submit(podman_bench.attempt(key, "report('start')"))
            status = await ended(adapter, key)
        finally:
            await adapter.aclose()
        assert status.reason == Reason.SETUP
        assert podman_bench.effects(key, "start") == 0
        said.append(status.message)

    store = site.home / "images"
    assert f"podman has no image docker.io/library/python:none in {store} (E_IMAGE)" in said[0]
    assert "image_folder" in said[0]
    assert f"{os.uname().nodename} has no apptainer" in said[1]
    assert "the image cannot be fetched (E_IMAGE)" in said[2]
    assert "127.0.0.1:9" in said[2]
    assert "refused" in said[2]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def contained(
    site: SlurmSite, podman_bench: SlurmPodmanBench
) -> AsyncIterator[FabricEnvironment]:
    """A worker whose one backend is the site, with containers of an allowed image."""
    del podman_bench  # it has made the store, or skipped the test
    config = backend_table(podman_options(site) | {"images": ["python:3.*"]})
    async with FabricEnvironment.fresh(config=config) as found:
        yield found


async def test_the_container_example_runs_unchanged(contained: FabricEnvironment) -> None:
    """The example gives the bytes that it gives on Docker; the image is in the capsule."""
    done = contained.cli("submit", str(EXAMPLES / "container.yaml"), "--follow", timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr

    result = json.loads(contained.cli("result", "container", "-o", "json").stdout)
    capsule = Capsule.open(result["capsule"])
    content = capsule.output("primes").read_bytes()
    assert content == PRIMES
    assert result["outputs"][0]["sha256"] == hashlib.sha256(PRIMES).hexdigest()
    assert "78498 primes" in done.stdout + done.stderr
    recorded = capsule.read("logs/1/environment.txt").decode()
    assert recorded == "image python:3.12-slim\nruntime podman\n"


async def test_an_image_that_is_not_listed_is_refused(contained: FabricEnvironment) -> None:
    """`plan` says which images may run, and `submit` starts nothing."""
    asked = [str(EXAMPLES / "container.yaml"), "--set", "id=other"]
    asked += ["--set", "payload.container.image=debian:12"]
    planned = contained.cli("plan", *asked)
    done = contained.cli("submit", *asked, "-o", "json")

    assert "may not run the image 'debian:12' (E_IMAGE); allowed: python:3.*" in (
        planned.stdout + planned.stderr
    )
    assert done.returncode == 2
    assert "E_IMAGE" in done.stdout


async def test_doctor_tells_what_containers_lack(
    contained: FabricEnvironment, site: SlurmSite
) -> None:
    """The runtime is named; a folder or program that is not there is a warning with a remedy."""
    file = contained.home / "fabric.toml"
    kept, well = file.read_text(), contained.cli("doctor").stdout
    options = podman_options(site) | {"runtime": "apptainer", "image_folder": "/srv/none"}
    file.write_text(backend_table(options))
    try:
        lacking = contained.cli("doctor").stdout
    finally:
        file.write_text(kept)

    assert "podman" in well
    assert "there is no" not in well
    assert "there is no apptainer" in lacking
    assert "there is no folder /srv/none" in lacking
