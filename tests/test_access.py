"""A server that refuses the caller: E_AUTH at every command, in Python, and what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from temporal_fabric import Fabric
from temporal_fabric.config import Settings
from temporal_fabric.connection import connect
from temporal_fabric.errors import AccessDenied, RequestRejected
from temporal_fabric.requests import admit
from temporal_fabric.schedules import Schedules
from temporal_fabric.testing.denying_server import (
    PERMISSION_DENIED,
    UNAUTHENTICATED,
    DenyingServer,
)
from tests.bodies import shell

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS: list[list[str]] = [
    ["plan", "request.json"],
    ["submit", "request.json"],
    ["submit", "--dry-run", "request.json"],
    ["clone", "some"],
    ["retry", "some"],
    ["status", "some"],
    ["list"],
    ["logs", "some"],
    ["events", "some"],
    ["get", "some", "--to", "folder"],
    ["wait", "some"],
    ["result", "some"],
    ["cancel", "some"],
    ["schedule", "create", "s", "request.json", "--every", "60"],
    ["schedule", "list"],
    ["schedule", "pause", "s"],
    ["schedule", "resume", "s"],
    ["schedule", "trigger", "s"],
    ["schedule", "backfill", "s", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"],
    ["schedule", "delete", "s"],
    ["worker"],
]


def _run(folder: Path, address: str, command: list[str]) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"FABRIC_HOME": str(folder / "home"), "TEMPORAL_ADDRESS": address}
    (folder / "request.json").write_text(json.dumps(shell("true")))
    program = [sys.executable, "-m", "temporal_fabric.cli", *command]
    return subprocess.run(
        program, env=env, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("command", COMMANDS, ids=["-".join(words[:2]) for words in COMMANDS])
def test_every_command_says_what_is_wrong(tmp_path: Path, command: list[str]) -> None:
    """Exit code 2 and E_AUTH with its remedy, where the server lets one connect first."""
    with DenyingServer(PERMISSION_DENIED, greets=True) as server:
        _assert_denied(_run(tmp_path, server.address, command))


@pytest.mark.parametrize("command", [["list"], ["submit", "request.json"], ["worker"]])
def test_a_refused_connection_says_so(tmp_path: Path, command: list[str]) -> None:
    """The same where the server refuses the connection itself."""
    with DenyingServer(PERMISSION_DENIED) as server:
        _assert_denied(_run(tmp_path, server.address, command))


def _assert_denied(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 2, done.stderr
    assert "E_AUTH" in done.stderr
    assert "TEMPORAL_API_KEY" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_json_answer_and_the_doctor(tmp_path: Path) -> None:
    """JSON has the problem under its code; the doctor has a check that fails, and its remedy."""
    with DenyingServer(UNAUTHENTICATED, greets=True) as server:
        listed = _run(tmp_path, server.address, ["list", "-o", "json"])
        looked = _run(tmp_path, server.address, ["doctor", "-o", "json"])

    (problem,) = json.loads(listed.stdout)["problems"]
    checks = {check["name"]: check for check in json.loads(looked.stdout)}
    assert (problem["code"], problem["path"]) == ("E_AUTH", "")
    assert "does not know this caller" in problem["message"]
    assert checks["server"]["verdict"] == "fail"
    assert "TEMPORAL_API_KEY" in checks["server"]["remedy"]


async def test_python_raises_one_error(tmp_path: Path) -> None:
    """AccessDenied from every call, and it is a RequestRejected with one problem."""
    settings = Settings(home=tmp_path, store=tmp_path.as_uri())
    body = shell("true")
    with DenyingServer(UNAUTHENTICATED, greets=True) as server:
        fabric = Fabric(await connect(settings, address=server.address), settings)
        handle = fabric.get("some")
        schedules = Schedules(fabric.client)
        now = datetime.now(UTC)
        for call in (
            lambda: fabric.submit(body),
            lambda: fabric.submit(body, check=False),
            lambda: fabric.plan(admit(body).request),
            fabric.list,
            lambda: fabric.find("last"),
            lambda: fabric.find("some"),
            handle.status,
            handle.result,
            handle.cancel,
            handle.retry,
            handle.exists,
            handle.body,
            schedules.list,
            lambda: schedules.backfill("s", now, now),
        ):
            with pytest.raises(AccessDenied, match="E_AUTH"):
                await call()
    with DenyingServer(UNAUTHENTICATED) as server, pytest.raises(RequestRejected) as caught:
        await connect(settings, address=server.address)

    assert caught.value.code == "E_AUTH"
    assert not any(tmp_path.iterdir())  # noqa: ASYNC240 - a look at a local folder
