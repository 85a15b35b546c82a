"""The life of a server: start, connect, stop, crash, restart."""

from __future__ import annotations

import asyncio
import os
import socket
import sqlite3
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from temporalio.client import Client, WorkflowExecutionStatus

from temporal_fabric.devserver import DevServer, read_server_info, resolve_address
from temporal_fabric.devserver.home import open_log
from temporal_fabric.devserver.ports import is_free
from temporal_fabric.errors import DevServerError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.devserver.conftest import Servers

LOCALHOST = "127.0.0.1"


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


async def start_workflow(address: str, workflow_id: str) -> None:
    client = await Client.connect(address)
    await client.start_workflow("Nobody", id=workflow_id, task_queue="nobody")


async def status_of(address: str, workflow_id: str) -> WorkflowExecutionStatus | None:
    client = await Client.connect(address)
    return (await client.get_workflow_handle(workflow_id).describe()).status


async def test_start_connect_stop(
    tmp_path: Path, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A started server answers and is published; a stopped one is gone, file and all."""
    monkeypatch.delenv("TEMPORAL_ADDRESS", raising=False)
    home = tmp_path / "a home%20?x"
    server = servers.start(home, ui=True)

    assert (await Client.connect(server.info.address)).namespace == server.info.namespace
    assert read_server_info(home) == server.info
    assert resolve_address(home) == server.info.address
    assert server.info.version.startswith("1.")
    assert server.info.ui_url is not None
    assert not is_free(LOCALHOST, port_of(server.info.ui_url))
    assert os.getsid(server.info.pid) == server.info.pid

    server.stop()
    server.stop()

    assert server.poll() == 0
    assert not (home / "server.json").exists()
    assert (home / "temporal.db").stat().st_size > 0
    assert resolve_address(home) is None


async def test_killed_server_loses_nothing(tmp_path: Path, servers: Servers) -> None:
    """After SIGKILL the same home runs on, here on another port, with its workflow."""
    first = servers.start(tmp_path)
    await start_workflow(first.info.address, "survivor")
    first.kill()
    assert read_server_info(tmp_path) is None

    old_port = port_of(first.info.address)
    with socket.create_server((LOCALHOST, old_port)):
        second = servers.start(tmp_path, port=old_port)

        assert port_of(second.info.address) > old_port
        status = await status_of(second.info.address, "survivor")

    assert status == WorkflowExecutionStatus.RUNNING


async def test_restart_on_the_same_port(tmp_path: Path, servers: Servers) -> None:
    """After SIGKILL the same port is free at once, and a restart takes it."""
    first = servers.start(tmp_path, ui=True)
    await start_workflow(first.info.address, "survivor")
    first.kill()

    second = servers.start(tmp_path, port=port_of(first.info.address), strict_port=True)

    assert second.info.address == first.info.address
    assert await status_of(second.info.address, "survivor") == WorkflowExecutionStatus.RUNNING


async def test_busy_port_gives_the_next_free_one(tmp_path: Path, servers: Servers) -> None:
    """A taken port moves the server up; with strict_port it is refused instead."""
    with socket.create_server((LOCALHOST, 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(DevServerError, match=f"port={port}"):
            servers.start(tmp_path, port=port, strict_port=True)
        server = servers.start(tmp_path, port=port)

    assert port < port_of(server.info.address) <= port + 200


async def test_homes_side_by_side(tmp_path: Path, servers: Servers) -> None:
    """Three starts at the same moment on one port all succeed, apart from each other."""
    with socket.create_server((LOCALHOST, 0)) as free:
        port = free.getsockname()[1]
    with ThreadPoolExecutor(3) as pool:
        futures = [
            pool.submit(servers.start, tmp_path / name, port=port, ui=True) for name in "abc"
        ]
        started = [future.result() for future in futures]

    assert len({server.info.address for server in started}) == 3
    assert len({server.info.ui_url for server in started}) == 3
    await start_workflow(started[0].info.address, "only-here")
    for server in started:
        assert (await Client.connect(server.info.address)).namespace == "default"
        client = await Client.connect(server.info.address)
        found = [item.id async for item in client.list_workflows("WorkflowId='only-here'")]
        assert found == ["only-here"] * (server is started[0])


def test_search_attributes_on_old_and_new_databases(tmp_path: Path, servers: Servers) -> None:
    """Attributes are there at the first start, stay at a restart, and may be added later."""
    names: dict[str, str] = {"FabricState": "Keyword", "FabricTags": "KeywordList"}
    for wanted in (names, names, names | {"FabricPriority": "Int"}):
        server = servers.start(tmp_path, search_attributes=wanted)
        listed = subprocess.run(
            [server.cli, "operator", "search-attribute", "list", "--address", server.info.address],
            capture_output=True,
            check=True,
            encoding="utf-8",
        )
        assert all(name in listed.stdout for name in wanted)
        server.kill()

    with pytest.raises(DevServerError, match="another type"):
        servers.start(tmp_path, search_attributes={"FabricState": "Int"})


def test_start_inside_an_event_loop(tmp_path: Path, servers: Servers) -> None:
    """The blocking start may be called from a coroutine."""

    async def start() -> DevServer:
        return servers.start(tmp_path)

    assert asyncio.run(start()).poll() is None


def test_partial_database_is_set_aside(tmp_path: Path, servers: Servers) -> None:
    """A database whose creation was cut short is kept under another name, not reused."""
    with closing(sqlite3.connect(tmp_path / "temporal.db")) as database:
        database.execute("CREATE TABLE namespaces (id)")
        database.commit()

    server = servers.start(tmp_path)

    assert server.poll() is None
    assert len(list(tmp_path.glob("temporal.db.partial-*"))) == 1


def test_server_that_cannot_run_says_why(tmp_path: Path, servers: Servers) -> None:
    """A server that ends at once is one error with its exit code, log and last words."""
    (tmp_path / "temporal.db").write_bytes(b"a text file, not a database" * 100)

    with pytest.raises(DevServerError) as caught:
        servers.start(tmp_path)

    assert "ended before it was ready, 3 times [exit=1" in str(caught.value)
    assert "file is not a database" in str(caught.value)
    assert not (tmp_path / "server.json").exists()


def test_large_log_is_moved_aside(tmp_path: Path) -> None:
    """A log beyond 10 MB is rotated at the next start, and old copies move up."""
    log = open_log(tmp_path)
    for _ in range(5):
        with log.open("wb") as stream:
            stream.truncate(11 * 1024 * 1024)
        assert open_log(tmp_path).stat().st_size == 0

    assert sorted(path.name for path in log.parent.iterdir()) == [
        "server.log",
        "server.log.1",
        "server.log.2",
        "server.log.3",
    ]
