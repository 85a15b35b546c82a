"""How a launcher comes, is found, and goes."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from temporal_fabric.errors import BackendUnknown, PermanentBackendError, TransientBackendError
from temporal_fabric.launcher import client as client_module
from temporal_fabric.launcher.protocol import MAX_LINE, PROTOCOL
from tests.launcher.place import SOURCE, Place, until

if TYPE_CHECKING:
    from pathlib import Path

NESTED = """
async def work():
    client = await LauncherClient.connect(HOME)
    out = (f"{FOLDER}/out", f"{FOLDER}/err")
    await client.start(LaunchSpec("a", ("sleep", NAP), dict(os.environ), FOLDER, *out))
    await asyncio.sleep(600)
asyncio.run(work())
"""

UNPRIVILEGED = """
async def work():
    client = await LauncherClient.connect(HOME)
    out = (f"{FOLDER}/out", f"{FOLDER}/err")
    script = "setsid sleep 5000 & exit 3"
    await client.start(LaunchSpec("a", ("sh", "-c", script), dict(os.environ), FOLDER, *out))
    info, record = await client.info(), await client.wait("a", 10)
    print(info["mode"], record.state, record.exit_code)
    await client.shutdown()
    await client.aclose()
asyncio.run(work())
"""


async def test_racing_clients_start_one_launcher(place: Place) -> None:
    """Twenty clients at once find the same launcher."""
    clients = await asyncio.gather(*(place.connect() for _ in range(20)))

    assert len({client.launcher_pid for client in clients}) == 1
    assert place.launchers() == 1


async def test_info_says_what_a_kill_promises(every_place: Place) -> None:
    """Certain means: held by a namespace and by control groups."""
    client = await every_place.connect()
    info = await client.info()
    held = info["mode"] != "plain" and info["cgroup"] != "none"

    assert info["mode"] == os.environ["FABRIC_LAUNCHER_MODE"]
    assert info["tree_kill"] == ("certain" if held else "best effort")
    assert info["pid"] == client.launcher_pid
    assert (info["version"], info["outdated"]) == (PROTOCOL, False)


async def test_home_longer_than_a_socket_address(folder: Path) -> None:
    """The address of a Unix socket holds 107 bytes; a home may be deeper."""
    place = Place(folder, folder.joinpath(*("deep" * 12 for _ in range(5))))
    client = await place.connect()
    await client.start(place.spec("a", "exit 2"))

    assert len(str(place.home)) > 250
    assert (await client.wait("a", 10)).exit_code == 2
    assert place.home.stat().st_mode & 0o777 == 0o700
    await place.close()


async def test_idle_launcher_leaves(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without client and payload it exits; with either it stays."""
    monkeypatch.setenv("FABRIC_LAUNCHER_IDLE_S", "0.3")
    client = await place.connect()
    await client.start(place.spec("a", "sleep 1"))
    await client.aclose()
    await asyncio.sleep(0.6)
    assert place.launchers() == 1
    assert await until(lambda: place.launchers() == 0)

    again = await place.connect()
    await asyncio.sleep(0.6)
    assert place.launchers() == 1
    assert (await again.query("a")).exit_code == 0


async def test_shutdown_waits_for_payloads(place: Place) -> None:
    """It refuses while a payload runs, then ends the process; the next call starts another."""
    client = await place.connect()
    await client.start(place.spec("a", "sleep 0.3"))
    with pytest.raises(TransientBackendError):
        await client.shutdown()
    await client.wait("a", 10)
    await client.shutdown()
    assert place.launchers() == 0
    await client.shutdown()
    assert place.launchers() == 0

    assert (await client.query("a")).exit_code == 0
    assert place.launchers() == 1


async def test_client_that_may_not_start_one(place: Place) -> None:
    """Without a launcher the answer is unknown, and soon."""
    begin = time.monotonic()
    with pytest.raises(BackendUnknown, match="no launcher answers"):
        await place.connect(start=False)

    assert time.monotonic() - begin < 5
    assert not place.home.exists()


async def test_concurrent_calls_on_one_connection(place: Place) -> None:
    """Long waits do not hold up other calls."""
    client = await place.connect()
    keys = [f"k{number}" for number in range(10)]
    await asyncio.gather(*(client.start(place.spec(key, "sleep 0.3; exit 1")) for key in keys))
    waits = [asyncio.create_task(client.wait(key, 10)) for key in keys]
    assert {record.key for record in await client.keys()} == set(keys)

    assert [record.exit_code for record in await asyncio.gather(*waits)] == [1] * 10


async def test_bad_requests(place: Place) -> None:
    """What can never be carried is refused before it reaches the launcher."""
    client = await place.connect()
    with pytest.raises(PermanentBackendError, match="not a key"):
        await client.query("../a")
    with pytest.raises(PermanentBackendError, match="too large"):
        await client.start(place.spec("a", "#" * MAX_LINE))
    await client.aclose()
    with pytest.raises(BackendUnknown, match="closed"):
        await client.query("a")


async def test_mode_that_does_not_exist(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The starter's own words reach the caller."""
    with monkeypatch.context() as patch:
        patch.setenv("FABRIC_LAUNCHER_MODE", "magic")
        with pytest.raises(BackendUnknown, match="none of pidns, userns, plain: 'magic'"):
            await place.connect()

    assert (await place.connect()).launcher_pid > 0


async def test_launcher_of_a_payload(place: Place) -> None:
    """A payload may run a launcher of its own; ending the payload ends that one's too."""
    inner = Place(place.folder, place.folder / "inner")
    code = NESTED.replace("NAP", repr(place.naptime))
    client = await place.connect()
    spec = replace(place.spec("outer", ""), argv=tuple(inner.python(code)))
    await client.start(spec)
    assert await until(lambda: place.nappers() == 1)
    assert inner.launchers() == 1
    ended = await client.terminate("outer", 0)

    assert (ended.state, ended.signal) == ("ended", 9)
    assert place.nappers() == 0
    if (await client.info())["cgroup"] != "none":
        assert await until(lambda: inner.launchers() == 0)
    await inner.close()


async def test_needs_its_own_folder_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its side runs from a copy of its folder and the fail points, without the rest."""
    copied = folder / "temporal_fabric" / "launcher"
    shutil.copytree(SOURCE / "temporal_fabric" / "launcher", copied)
    shutil.copy(SOURCE / "temporal_fabric" / "failpoints.py", copied.parent)
    monkeypatch.setattr(client_module, "_STARTER", copied / "starter.py")
    place = Place(folder)
    client = await place.connect()
    await client.start(place.spec("a", "exit 2"))

    assert (await client.wait("a", 10)).exit_code == 2
    await place.close()


@pytest.mark.parametrize("mode", ["", "plain"])
async def test_user_without_any_capability(
    place: Place, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """No privilege is needed, with or without user namespaces."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv to drop the capabilities")
    monkeypatch.setenv("FABRIC_LAUNCHER_MODE", mode)
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
    done = await asyncio.to_thread(
        subprocess.run, drop + place.python(UNPRIVILEGED), capture_output=True, check=False
    )
    expected = {b"plain ended 3"} | ({b"userns ended 3"} if not mode else set[bytes]())

    assert done.stdout.strip() in expected, done.stderr.decode()
