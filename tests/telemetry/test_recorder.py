"""The recorder: every line a payload wrote becomes rows once, whatever dies in between."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import duckdb
import pytest

from temporal_fabric.activities.recording import Recording
from temporal_fabric.outcomes import ExperimentResult
from temporal_fabric.recorder import segments
from temporal_fabric.recorder.lines import MAX_LINE, LineRefused, read_line
from temporal_fabric.recorder.merging import merge
from temporal_fabric.recorder.recorder import Limits, Recorder

if TYPE_CHECKING:
    from pathlib import Path

LINES = 20

# Seals three times, and dies at the N-th call into C that the sealing makes.
DYING = f"""
import json, os, pathlib, signal, sys
import pyarrow.parquet
from temporal_fabric.recorder.recorder import Recorder

folder, deadly, calls = pathlib.Path(sys.argv[1]), int(sys.argv[2]), 0

def count(frame, event, function):
    global calls
    if event == "c_call" and frame.f_code.co_filename.endswith(("durable.py", "segments.py")):
        calls += 1
        if calls == deadly:
            os.kill(os.getpid(), signal.SIGKILL)

recorder = Recorder(folder, 1)
sys.setprofile(count)
for step in range({LINES}):
    with (folder / "telemetry.jsonl").open("a") as file:
        file.write(json.dumps({{"step": step, "loss": 1.0}}) + "\\n")
    if step % 8 == 7:
        recorder.poll()
        recorder.seal()
"""


def _write(folder: Path, *lines: object) -> None:
    with (folder / "telemetry.jsonl").open("a") as file:
        file.writelines(f"{json.dumps(line)}\n" for line in lines)


def _finish(folder: Path, limits: Limits | None = None) -> None:
    assert Recorder(folder, 1, limits=limits).finish()


def _rows(folder: Path, sql: str) -> list[tuple[object, ...]]:
    tables = merge({1: folder}, ExperimentResult("SUCCEEDED"), folder / "tables")
    with duckdb.connect() as database:
        for name, table in tables.items():
            path = folder / name if isinstance(table, bytes) else table
            if isinstance(table, bytes):
                path.write_bytes(table)
            database.execute(f"CREATE VIEW {path.stem} AS FROM '{path}'")
        return database.execute(sql).fetchall()


def _steps(folder: Path) -> list[int]:
    found = _rows(folder, "SELECT step FROM telemetry WHERE name = 'loss' ORDER BY seq")
    return [int(str(row[0])) for row in found]


def test_a_line_becomes_rows(tmp_path: Path) -> None:
    """Numbers are metrics, stage and event are events; both sources are read."""
    _write(tmp_path, {"step": 3, "at": 1.5, "loss": 0.25, "progress": 0.5, "stage": "fit"})
    (tmp_path / "stdout.log").write_text('hello\n::fabric:: {"acc": 1, "event": "saved"}\n')

    _finish(tmp_path)

    assert _rows(tmp_path, "SELECT step, epoch_ms(time), name, value FROM telemetry")[:2] == [
        (3, 1500, "loss", 0.25),
        (3, 1500, "progress", 0.5),
    ]
    assert _rows(tmp_path, "SELECT event, detail FROM events ORDER BY event") == [
        ("event", '{"event": "saved"}'),
        ("stage", '{"stage": "fit", "step": 3}'),
    ]


def test_a_line_is_read_when_it_is_whole(tmp_path: Path) -> None:
    """Half a line waits for its end; at the payload's end it is a line as it is."""
    recorder = Recorder(tmp_path, 1)
    (tmp_path / "telemetry.jsonl").write_text('{"loss": 1}\n{"los')
    recorder.poll()
    with (tmp_path / "telemetry.jsonl").open("a") as file:
        file.write('s": 2}')
    recorder.poll()

    assert recorder.live["metrics"] == {"loss": 1.0}
    assert recorder.finish()
    assert recorder.live["metrics"] == {"loss": 2.0}


@pytest.mark.parametrize(
    "line",
    [
        b"x",
        b"[1]",
        b"{}",
        b"\xff\xfe",
        b"[" * 5000,
        b'{"step": 1.5, "a": 1}',
        b'{"step": 9223372036854775808, "a": 1}',
        b'{"progress": 2}',
        b'{"at": -1, "a": 1}',
        b'{"a": 1' + b"0" * 400 + b"}",
        b'{"\\ud800": 1}',
        b'{"": 1}',
        b'{"a": "' + b"x" * MAX_LINE + b'"}',
        json.dumps({str(i): i for i in range(1000)}).encode(),
    ],
)
def test_what_is_no_telemetry_is_refused(line: bytes) -> None:
    """Every refusal is the one error, whatever a payload writes."""
    with pytest.raises(LineRefused):
        read_line(line, 1, 0)


def test_garbage_is_counted_and_kept_aside(tmp_path: Path) -> None:
    """Lines that are no telemetry cost the others nothing and can be looked at, up to a cap."""
    junk = os.urandom(200_000).replace(b"\n", b"x") + b"\n"
    (tmp_path / "telemetry.jsonl").write_bytes(b"junk\n" * 5000 + junk + b'{"loss": 1}\n')

    _finish(tmp_path, Limits(rejected_bytes=10_000))

    told = _rows(tmp_path, "SELECT detail FROM events WHERE event = 'rejected' ORDER BY seq")
    assert _rows(tmp_path, "SELECT value FROM telemetry") == [(1.0,)]
    assert json.loads(str(told[-1][0])) == {"lines": 5001}
    assert (tmp_path / "rejected.jsonl").stat().st_size < 20_000


def test_a_flood_is_sampled_and_said(tmp_path: Path) -> None:
    """Beyond the limit lines are dropped, their number is an event, the last one is kept."""
    _write(tmp_path, *({"step": step, "loss": 1} for step in range(5000)))

    _finish(tmp_path, Limits(rows_per_s=10, burst_rows=100))

    steps = _steps(tmp_path)
    told = _rows(tmp_path, "SELECT detail FROM events WHERE event = 'dropped'")
    dropped = sum(json.loads(str(row[0]))["lines"] for row in told)
    assert len(steps) < 200
    assert steps[-1] == 4999
    assert len(steps) + dropped == 5000


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_not_a_file_is_left_alone(tmp_path: Path, kind: str) -> None:
    """A payload cannot make the worker read another file, or wait for ever."""
    path = tmp_path / "telemetry.jsonl"
    if kind == "link":
        (tmp_path / "secret").write_text('{"loss": 1}\n')
        path.symlink_to(tmp_path / "secret")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()

    _finish(tmp_path)

    assert _steps(tmp_path) == []


def test_secrets_are_hidden_before_they_are_sealed(tmp_path: Path) -> None:
    """What was read passes the filter first, in segments and in what is kept aside."""
    _write(tmp_path, {"event": "token hunter2"})
    (tmp_path / "stdout.log").write_text("::fabric:: hunter2\n")

    recorder = Recorder(tmp_path, 1, lambda data: data.replace(b"hunter2", b"***"))
    assert recorder.finish()

    sealed = [path for path in tmp_path.iterdir() if path.suffix == ".parquet"]
    assert _rows(tmp_path, "SELECT detail FROM events LIMIT 1") == [('{"event": "token ***"}',)]
    assert all(b"hunter2" not in path.read_bytes() for path in sealed)
    assert "hunter2" not in (tmp_path / "rejected.jsonl").read_text()


def test_two_recorders_of_one_attempt_seal_each_row_once(tmp_path: Path) -> None:
    """A supervisor that wakes beside its successor seals nothing a second time."""
    slept, woke = Recorder(tmp_path, 1), Recorder(tmp_path, 1)
    for start in range(0, LINES, 4):
        _write(tmp_path, *({"step": step, "loss": 1} for step in range(start, start + 4)))
        slept.poll()
        woke.poll()
        woke.seal()
        slept.seal()

    assert slept.finish()
    assert woke.finish()

    assert _steps(tmp_path) == list(range(LINES))


def test_a_full_disk_is_told_and_tried_again(tmp_path: Path) -> None:
    """While nothing can be sealed the rows wait, and afterwards all of them are there."""
    _write(tmp_path, *({"step": step, "loss": 1} for step in range(LINES)))
    recorder = Recorder(tmp_path, 1)
    recorder.poll()
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "import pathlib, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from temporal_fabric.recorder.recorder import Recorder\n"
        "recorder = Recorder(pathlib.Path(sys.argv[1]), 1)\n"
        "print(recorder.finish(), recorder.finish())\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", limited, tmp_path], capture_output=True, text=True, check=True
    )
    left = segments.paths(tmp_path)
    assert recorder.finish()

    assert done.stdout == "False False\n"
    assert left == []
    assert _steps(tmp_path) == list(range(LINES))


def test_death_at_any_point_of_a_seal_loses_and_repeats_nothing(tmp_path: Path) -> None:
    """Killed at every call that sealing makes, the next recorder completes each step once."""
    deadly, died = 0, True
    while died:
        deadly += 4 if deadly > 40 else 1
        folder = tmp_path / str(deadly)
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", DYING, folder, str(deadly)],
            stderr=subprocess.PIPE,
            check=False,
        )
        died = done.returncode == -signal.SIGKILL
        assert died or done.returncode == 0, done.stderr.decode()
        acknowledged = segments.last(folder)[1].lines
        written = (folder / "telemetry.jsonl").read_text().count("\n")

        _finish(folder)

        assert _steps(folder) == list(range(written)), deadly
        assert acknowledged <= written
    assert deadly > 20


async def test_a_payload_that_ends_during_a_look_is_read_once(tmp_path: Path) -> None:
    """The rest is read only when the look that was under way has ended: no row twice."""
    looks, go_on, beside = threading.Event(), threading.Event(), threading.Lock()
    alone: list[bool] = []

    def slowly(data: bytes) -> bytes:
        alone.append(beside.acquire(blocking=False))
        looks.set()
        assert go_on.wait(30)
        if alone[-1]:
            beside.release()
        return data

    _write(tmp_path, *({"step": step, "loss": 1.0} for step in range(3)))
    recording = Recording(Recorder(tmp_path, 1, slowly))
    looking = asyncio.create_task(recording.run())
    assert await asyncio.to_thread(looks.wait, 30)
    looking.cancel()
    finishing = asyncio.create_task(recording.finish())
    await asyncio.sleep(0.5)  # for a second reader, were there one, to come as far
    go_on.set()
    await finishing

    assert all(alone)
    assert _steps(tmp_path) == [0, 1, 2]
