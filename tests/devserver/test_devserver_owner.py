"""Who owns a home, and with whom a server dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from temporal_fabric.devserver import DevServer, ServerInfo, read_server_info, resolve_address
from temporal_fabric.devserver.info import start_time_of
from temporal_fabric.errors import DevServerError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.devserver.conftest import Servers

STARTER = """
import sys, time
from pathlib import Path
from temporal_fabric.devserver import DevServer
server = DevServer.start(
    Path(sys.argv[1]), durable=False, port=0, ui=False, die_with_parent=sys.argv[2] == "yes"
)
print(server.info.pid, flush=True)
time.sleep(60)
"""


def killed_starter(home: Path, cli: Path, *, die_with_parent: bool) -> int:
    """Start a server from another process, SIGKILL that process, return the server's pid."""
    argv = [sys.executable, "-c", STARTER, str(home), "yes" if die_with_parent else "no"]
    env = os.environ | {"FABRIC_TEMPORAL_CLI": str(cli)}
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, encoding="utf-8") as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        starter.kill()
    return pid


def gone_within(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while start_time_of(pid) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_second_owner_is_refused(tmp_path: Path, servers: Servers) -> None:
    """A second start names pid and address of the first, and what to do."""
    first = servers.start(tmp_path)

    with pytest.raises(DevServerError) as caught:
        servers.start(tmp_path)

    assert f"pid={first.info.pid}" in str(caught.value)
    assert f"address={first.info.address}" in str(caught.value)
    assert "FABRIC_HOME" in str(caught.value)


def test_lock_lives_as_long_as_the_server(tmp_path: Path, cli: Path, servers: Servers) -> None:
    """The starter's death frees nothing; the server's death frees the home at once."""
    pid = killed_starter(tmp_path, cli, die_with_parent=False)
    try:
        (tmp_path / "server.json").unlink()
        with pytest.raises(DevServerError, match=f"pid={pid}, address=not yet known"):
            servers.start(tmp_path)
    finally:
        os.kill(pid, signal.SIGKILL)
    assert gone_within(pid, 5)

    assert servers.start(tmp_path).info.pid != pid


def test_dies_with_parent(tmp_path: Path, cli: Path) -> None:
    """With die_with_parent a SIGKILL of the starter takes the server along."""
    pid = killed_starter(tmp_path, cli, die_with_parent=True)

    assert gone_within(pid, 5)
    assert read_server_info(tmp_path) is None


def test_die_with_parent_means_the_process(tmp_path: Path, servers: Servers) -> None:
    """The end of the thread that called start is not the end of the parent."""
    found: list[DevServer] = []
    thread = threading.Thread(
        target=lambda: found.append(servers.start(tmp_path, die_with_parent=True))
    )
    thread.start()
    thread.join()

    assert not gone_within(found[0].info.pid, 0.5)


def test_refused_while_another_is_starting(tmp_path: Path, servers: Servers) -> None:
    """Of many starts at one moment in one home exactly one wins."""
    outcomes: list[DevServer | DevServerError] = []

    def start() -> None:
        try:
            outcomes.append(servers.start(tmp_path))
        except DevServerError as exc:
            outcomes.append(exc)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(isinstance(item, DevServer) for item in outcomes) == 1
    assert len(outcomes) == 4


@pytest.mark.parametrize(
    "change",
    [{"pid": 2**22 + 1}, {"start_time": 1}, {"boot_id": "another boot"}],
)
def test_stale_file_is_ignored(
    tmp_path: Path, servers: Servers, monkeypatch: pytest.MonkeyPatch, change: dict[str, object]
) -> None:
    """A file of a dead process, of a reused pid or of another boot names no server."""
    monkeypatch.delenv("TEMPORAL_ADDRESS", raising=False)
    server = servers.start(tmp_path)
    path = tmp_path / "server.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | change), encoding="utf-8")

    assert read_server_info(tmp_path) is None
    assert resolve_address(tmp_path) is None

    server.kill()
    assert isinstance(servers.start(tmp_path).info, ServerInfo)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"boot_id": 1}', "null"])
def test_malformed_file_is_ignored(tmp_path: Path, text: str) -> None:
    """Whatever stands in the file, reading it names a live server or none."""
    (tmp_path / "server.json").write_text(text, encoding="utf-8")

    assert read_server_info(tmp_path) is None


def test_stop_leaves_a_successors_file(tmp_path: Path, servers: Servers) -> None:
    """Stopping a server that is already gone does not unpublish the next one."""
    first = servers.start(tmp_path)
    first.kill()
    second = servers.start(tmp_path)

    first.stop()

    assert read_server_info(tmp_path) == second.info


def test_temporal_address_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's address is used as it is, whatever runs in the home."""
    monkeypatch.setenv("TEMPORAL_ADDRESS", "somewhere:7233")

    assert resolve_address(tmp_path) == "somewhere:7233"
