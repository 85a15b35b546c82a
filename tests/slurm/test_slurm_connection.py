"""The way to the login node: connections that break, keys that are not pinned or not accepted."""

from __future__ import annotations

import asyncio
import os
import subprocess
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from temporal_fabric.adapters.contract import JobHandle
from temporal_fabric.errors import TransientBackendError
from tests.slurm.adapting import adapter_with

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from temporal_fabric.testing.slurm_bench import SlurmBench
    from temporal_fabric.testing.slurm_site import SlurmSite

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_broken_connection_goes_on_where_it_stopped(
    bench: SlurmBench, site: SlurmSite
) -> None:
    """Files that a cut connection has left half-way arrive whole, there and back."""
    content = os.urandom(3 * 2**20)
    key = bench.key()
    code = (
        "data = open('task.bin', 'rb').read()\n"
        "open(os.environ['FABRIC_OUTPUT_DIR'] + '/out.bin', 'wb').write(data[::-1])"
    )
    attempt = bench.attempt(key, code)
    (attempt.folder / "task" / "task.bin").write_bytes(content)
    async with _cutting(site.port, 2**20) as port, adapter_with(bench, port=port) as adapter:
        tries = 0
        while True:
            try:
                tries += 1
                await adapter.submit(attempt)
                break
            except TransientBackendError:
                assert tries < 30
        while True:
            try:
                status = await adapter.wait(JobHandle(key, ""), 30)
                break
            except TransientBackendError:
                tries += 1
                assert tries < 60

    assert tries > 3
    assert status.exit_code == 0
    assert (bench.place(key).output / "out.bin").read_bytes() == content[::-1]
    assert [path.name for path in bench.place(key).output.iterdir()] == ["out.bin"]
    await bench.settle()


@asynccontextmanager
async def _cutting(port: int, after: int) -> AsyncGenerator[int]:
    """Yield a port whose connections are cut after so many bytes in either direction."""
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        own = asyncio.current_task()
        assert own is not None
        serving.add(own)
        from_site, to_site = await asyncio.open_connection("127.0.0.1", port)
        left = after

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            nonlocal left
            with suppress(OSError):
                while left > 0 and (data := await source.read(min(2**14, left))):
                    left -= len(data)
                    sink.write(data)
                    await sink.drain()

        ways = ((reader, to_site), (from_site, writer))
        pumps = [asyncio.create_task(pump(*way)) for way in ways]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(0.2)  # what was passed on is read
        finally:
            for task in pumps:
                task.cancel()
            writer.close()
            to_site.close()
            await asyncio.gather(
                *pumps, writer.wait_closed(), to_site.wait_closed(), return_exceptions=True
            )

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


def _fingerprint(path: Path) -> str:
    said = subprocess.run(
        ["ssh-keygen", "-lf", str(path)], capture_output=True, text=True, check=True
    )
    return said.stdout.split()[1]


@pytest.mark.parametrize("pinned", ["other", "none"])
async def test_a_key_that_is_not_pinned_is_refused(
    bench: SlurmBench, site: SlurmSite, tmp_path: Path, pinned: str
) -> None:
    """A host with another key, or a new one, is refused with its fingerprint and what to do."""
    other = " ".join(site.key.with_suffix(".pub").read_text().split()[:2])
    options = {
        "host_key": other if pinned == "other" else "",
        "known_hosts": str(tmp_path / "none"),
    }
    async with adapter_with(bench, **options) as adapter:
        with pytest.raises(TransientBackendError) as caught:
            await adapter.inventory()
        verdict = await adapter.can_fulfill(bench.request("pass"))

    message = str(caught.value)
    assert "E_HOSTKEY" in message
    assert _fingerprint(site.folder / "ssh" / "host.pub") in message
    assert f'host_key = "{site.host_key}"' in message
    assert ("changed" if pinned == "other" else "not known") in message
    assert [shortfall.code for shortfall in verdict.shortfalls] == ["E_HOSTKEY"]


async def test_the_agent_and_a_jump_host_lead_there(
    bench: SlurmBench, site: SlurmSite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Keys of an agent and a host on the way work, with keys pinned in a file."""
    socket = str(site.folder / "agent")
    agent = await asyncio.create_subprocess_exec(
        "ssh-agent", "-D", "-a", socket, stdout=subprocess.DEVNULL
    )
    try:
        while "agent" not in os.listdir(site.folder):  # noqa: PTH208 - only its name
            await asyncio.sleep(0.02)
        monkeypatch.setenv("SSH_AUTH_SOCK", socket)
        subprocess.run(["ssh-add", "-q", str(site.key)], check=True)
        way = {"key": "", "agent": True, "host_key": "", "known_hosts": str(site.known_hosts)}
        way |= {"jump": [f"{site.user}@127.0.0.1:{site.port}"]}
        async with adapter_with(bench, **way) as adapter:
            found = await adapter.inventory()
        async with adapter_with(bench, **way | {"known_hosts": str(tmp_path / "none")}) as adapter:
            with pytest.raises(TransientBackendError, match="E_HOSTKEY"):
                await adapter.inventory()
    finally:
        agent.terminate()
        await agent.wait()
    assert found.healthy


async def test_a_key_that_the_host_does_not_accept_is_told(
    bench: SlurmBench, site: SlurmSite, tmp_path: Path
) -> None:
    """A refused login names the key that was tried and where it belongs."""
    key = tmp_path / "stranger"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    async with adapter_with(bench, key=str(key)) as adapter:
        with pytest.raises(TransientBackendError) as caught:
            await adapter.inventory()

    assert _fingerprint(key.with_suffix(".pub")) in str(caught.value)
    assert "authorized_keys" in str(caught.value)
    assert site.user in str(caught.value)
