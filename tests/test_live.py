"""The live views, as a person sees them: a real terminal's screen, read cell by cell."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from temporal_fabric.sparkline import sparkline
from temporal_fabric.testing.terminal import Terminal
from tests.bodies import python, shell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from temporal_fabric.testing.environment import FabricEnvironment

TRAINING = """
import json, os, time
for step in range(1, 41):
    row = {"step": step, "progress": step / 40, "stage": "train", "loss": 1 / step}
    print("::fabric:: " + json.dumps(row), flush=True)
    if step % 10 == 0:
        print(f"ten more: {step}", flush=True)
    time.sleep(0.1)
"""


@pytest.fixture
def terminal(environment: FabricEnvironment) -> Iterator[Callable[..., Terminal]]:
    """Runs the command line in terminals, and ends what is left of them."""
    opened: list[Terminal] = []

    def run(*args: str) -> Terminal:
        command = [sys.executable, "-m", "temporal_fabric.cli", *args]
        opened.append(Terminal(command, environment.env))
        return opened[-1]

    yield run
    for each in opened:
        each.close()


def _file(folder: Path, body: dict[str, Any]) -> str:
    path = folder / f"{body['id']}.json"
    path.write_text(json.dumps(body))
    return str(path)


def _wait_for(words: str, file: Path) -> None:
    """Wait until a file has these words."""
    until = time.monotonic() + 60
    while words not in file.read_text():
        assert time.monotonic() < until, file.read_text()
        time.sleep(0.05)


def test_follow_draws_progress_below_the_output(
    terminal: Callable[..., Terminal], tmp_path: Path
) -> None:
    """Output scrolls, the frame stays below it, telemetry is drawn and not printed raw."""
    body = python(TRAINING, name="training")

    screen = terminal("submit", "--follow", _file(tmp_path, body))
    during = screen.until("RUNNING", "ten more: 10", "train", "loss", "%")
    code = screen.end()

    assert code == 0
    assert "::fabric::" not in during
    assert f"default/{body['id']}" in during
    assert "epoch 1" in during
    assert "ten more: 40" in screen.text
    assert "SUCCEEDED" in screen.text
    assert "╭" not in screen.text  # the frame is gone, the lines remain


def test_follow_ends_with_the_failure(terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    """What went wrong is the last thing on the screen, and the exit code says so."""
    screen = terminal("submit", "--follow", _file(tmp_path, shell("echo bad >&2; exit 3")))

    code = screen.end()

    assert code == 100
    assert "EXIT_CODE" in screen.text
    assert "bad" in screen.text


def test_list_watch_follows_what_changes(
    environment: FabricEnvironment, terminal: Callable[..., Terminal], tmp_path: Path
) -> None:
    """A row moves from RUNNING with progress to SUCCEEDED; Ctrl-C ends it without an error."""
    body = python(TRAINING, name="watched")
    screen = terminal("list", "--watch")
    environment.cli("submit", _file(tmp_path, body))

    running = screen.until(f"{body['id']}  RUNNING", "%")
    ended = screen.until(f"{body['id']}  SUCCEEDED")
    screen.interrupt()

    row = next(line for line in running.splitlines() if body["id"] in line)
    assert "watched" in row
    assert "1 RUNNING" in running
    assert "RUNNING" not in next(line for line in ended.splitlines() if body["id"] in line)
    assert screen.end() == 0


def test_status_watch_stays_until_the_end(
    environment: FabricEnvironment, terminal: Callable[..., Terminal], tmp_path: Path
) -> None:
    """The last picture shows every state with its time."""
    body = shell("sleep 1")
    environment.cli("submit", _file(tmp_path, body))

    screen = terminal("status", "--watch", body["id"])

    assert screen.end() == 0
    assert all(state in screen.text for state in ("QUEUED", "PREPARING", "RUNNING", "SUCCEEDED"))


def test_list_watch_as_lines_of_json(environment: FabricEnvironment, tmp_path: Path) -> None:
    """Without a terminal each change is one line; nothing is drawn."""
    body = shell("sleep 3")
    environment.cli("submit", _file(tmp_path, body))
    command = [sys.executable, "-m", "temporal_fabric.cli", "list", "-w", "-o", "jsonl"]
    with subprocess.Popen(command, env=environment.env, stdout=subprocess.PIPE, text=True) as told:
        assert told.stdout is not None
        states: list[str] = []
        for line in told.stdout:
            row = json.loads(line)
            if row["request_id"] == body["id"]:
                states.append(row["state"])
            if states and states[-1] == "SUCCEEDED":
                break
        told.terminate()

    assert states[0] != "SUCCEEDED"
    assert len(states) == len(set(states))


@pytest.mark.parametrize("args", [["list", "--watch"], ["status", "--watch", "last"]])
def test_watch_needs_a_terminal(environment: FabricEnvironment, args: list[str]) -> None:
    """Drawing into a file is refused, and the message says what to use there."""
    done = environment.cli(*args)

    assert done.returncode == 2
    assert "jsonl" in done.stderr


def test_a_curve_keeps_its_ends() -> None:
    """Lowest and highest stand out, and a long curve is thinned without losing the last value."""
    assert sparkline([0, 1, 2, 3]) == "▁▃▆█"
    assert sparkline([5, 5, 5]) == "▁▁▁"
    assert sparkline([]) == ""
    assert len(sparkline(list(range(1000)), 20)) == 20
    assert sparkline([*range(999), 5000], 20)[-1] == "█"


def test_followers_outlive_the_server(own_environment: FabricEnvironment, tmp_path: Path) -> None:
    """A server that dies and comes back costs followers a note, and no line of output."""
    env = own_environment
    env.start_worker()
    body = shell("for i in 1 2 3 4 5 6 7 8; do echo line $i; sleep 1; done")
    command = [sys.executable, "-m", "temporal_fabric.cli", "submit", "-f", _file(tmp_path, body)]
    screen = Terminal([sys.executable, "-m", "temporal_fabric.cli", "list", "--watch"], env.env)
    out, err = tmp_path / "out", tmp_path / "err"
    with out.open("wb") as said, err.open("wb") as noted:
        follower = subprocess.Popen(command, env=env.env, stdout=said, stderr=noted)
    assert env.server is not None
    _wait_for("line 1", out)
    screen.until(f"{body['id']}  RUNNING")

    env.server.kill()
    away = screen.until("does not answer")
    _wait_for("does not answer", err)
    env.start_server()
    assert follower.wait(timeout=60) == 0, err.read_text()
    screen.until(f"{body['id']}  SUCCEEDED")
    screen.close()

    lines = out.read_text().splitlines()
    assert lines[:8] == [f"line {number}" for number in range(1, 9)]
    assert body["id"] in away
