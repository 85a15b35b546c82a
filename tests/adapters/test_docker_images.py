"""Images that are fetched: from a real registry, with progress, by name and by digest."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from temporal_fabric.adapters import docker_images
from temporal_fabric.errors import PermanentBackendError, TransientBackendError
from temporal_fabric.testing.conformance_starting import ended
from temporal_fabric.testing.docker_daemon import IMAGE
from tests.backends import missing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from temporal_fabric.testing.docker_bench import DockerBench
    from temporal_fabric.testing.docker_daemon import DockerDaemon

pytestmark = pytest.mark.asyncio(loop_scope="module")

_CONFIG = """
version: 0.1
log: {{accesslog: {{disabled: true}}, level: error}}
storage: {{filesystem: {{rootdirectory: "{folder}"}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


@pytest.fixture(scope="module")
def registry(docker: DockerDaemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry that has ``HOST:PORT/team/python:1``, of 20 MB more; the engine has it not."""
    if shutil.which("docker-registry") is None:
        missing("docker", "there is no docker-registry (Debian's package of that name)")
    folder = tmp_path_factory.mktemp("registry")
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "config.yml").write_text(_CONFIG.format(folder=folder / "data", port=port))
    with (folder / "log").open("wb") as log:
        serving = subprocess.Popen(
            ["docker-registry", "serve", folder / "config.yml"], stdout=log, stderr=log
        )
    try:
        name, end = f"127.0.0.1:{port}/team/python:1", time.monotonic() + 30
        fill = "head -c 20000000 /dev/urandom > /blob"
        docker.client("run", "--network=none", "--name=filled", IMAGE, "sh", "-c", fill)
        docker.client("commit", "filled", name)
        docker.client("rm", "filled")
        while not _answers(port):
            assert time.monotonic() < end, (folder / "log").read_text()
            time.sleep(0.05)
        docker.client("push", "--quiet", name)
        _drop(docker, name)
        yield name
    finally:
        serving.kill()
        serving.wait()


def _answers(port: int) -> bool:
    with closing(socket.socket()) as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


def _drop(docker: DockerDaemon, name: str) -> None:
    docker.client("rmi", name)


async def test_an_image_is_fetched(
    docker_bench: DockerBench, docker: DockerDaemon, registry: str
) -> None:
    """An image that is not here is fetched, which is said meanwhile; its digest is recorded."""
    bench, key, said = docker_bench, docker_bench.key(), list[str]()
    adapter = bench.made_with(images=[f"{registry.rpartition('/')[0]}/*"], pull=True)
    attempt = bench.attempt(key, "report('start')", environment={"image": registry})
    assert (await adapter.can_fulfill(attempt.request)).ok
    await adapter.submit(replace(attempt, say=said.append))
    status = await ended(adapter, key)
    recorded = (attempt.folder / "environment.txt").read_text().splitlines()
    await adapter.terminate(key, 0.0)
    await adapter.forget(key)
    await adapter.aclose()
    _drop(docker, registry)

    assert status.exit_code == 0
    assert said[0] == f"fetching {registry}"
    assert said[-1].endswith(" of 20.0 MB")
    assert recorded[0] == f"image {registry}"
    assert recorded[1].startswith("id sha256:")
    assert recorded[2].startswith(f"digest {registry.rpartition(':')[0]}@sha256:")


async def test_an_image_is_fetched_by_its_digest(
    docker_bench: DockerBench, docker: DockerDaemon, registry: str
) -> None:
    """A reference with a digest is allowed by that digest, before and after it is fetched."""
    docker.client("pull", "--quiet", registry)
    form = "{{index .RepoDigests 0}}"
    pinned = docker.client("image", "inspect", "--format", form, registry).strip()
    _drop(docker, registry)
    bench, key = docker_bench, docker_bench.key()
    adapter = bench.made_with(images=[pinned.partition("@")[2]], pull=True)
    attempt = bench.attempt(key, "report('start')", environment={"image": pinned})
    assert (await adapter.can_fulfill(attempt.request)).ok
    await adapter.submit(attempt)
    status = await ended(adapter, key)
    await adapter.terminate(key, 0.0)
    await adapter.forget(key)
    await adapter.aclose()

    assert status.exit_code == 0


async def test_what_a_registry_has_not_got(docker_bench: DockerBench, registry: str) -> None:
    """A name that a registry does not know fails for good; one that is away may be tried again."""
    bench = docker_bench
    unknown = registry.rpartition(":")[0] + ":none"
    adapter = bench.made_with(images=["*"], pull=True)
    attempt = bench.attempt(bench.key(), "", environment={"image": unknown})
    with pytest.raises(PermanentBackendError, match="E_IMAGE"):
        await adapter.submit(attempt)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(docker_images, "_PAUSE_S", 0.05)
        said: list[str] = []
        attempt = bench.attempt(bench.key(), "", environment={"image": "127.0.0.1:1/team/x:1"})
        with pytest.raises(TransientBackendError):
            await adapter.submit(replace(attempt, say=said.append))
    await adapter.aclose()

    assert sum("again" in text for text in said) == 3
