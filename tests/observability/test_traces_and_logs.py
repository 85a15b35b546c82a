"""Event log, JSON log lines and traces of a real worker."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from temporalio.client import Client

from temporal_fabric import Capsule, ExperimentCanceled, ExperimentFailed
from temporal_fabric.observability.events import EventLog
from temporal_fabric.observability.traceparent import RunTrace, TraceParent
from temporal_fabric.states import State
from tests.bodies import shell
from tests.observability.test_metrics import lines

if TYPE_CHECKING:
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    from temporal_fabric.client import Fabric
    from temporal_fabric.handle import ExperimentHandle
    from temporal_fabric.testing.environment import FabricEnvironment
    from tests.observability.collector import Collector

pytestmark = pytest.mark.asyncio(loop_scope="module")

SAY = "printf %s $TRACEPARENT"


def events(environment: FabricEnvironment, request_id: str) -> list[dict[str, Any]]:
    """Return the event log's lines of one task."""
    text = (environment.settings.logs / "events.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    return [row for row in rows if row.get("request_id") == request_id]


async def ended(collector: Collector, trace_id: str, *wanted: str) -> dict[str, Span]:
    """Wait until the collector has these spans of a trace."""
    async with asyncio.timeout(20):
        while True:
            spans = [span for span in collector.spans if span.trace_id.hex() == trace_id]
            found = {span.name: span for span in spans}
            if found.keys() >= set(wanted):
                return found
            await asyncio.sleep(0.1)


def said(capsule: str) -> TraceParent:
    """Return the TRACEPARENT that a payload printed."""
    text = (Capsule.open(capsule).folder / "logs/1/stdout.log").read_text()
    found = TraceParent.parse(text)
    assert found is not None, text
    return found


def _names(span: Span, workflow_id: str) -> bool:
    values = [attribute.value.string_value for attribute in span.attributes]
    return span.name == "acquire" and workflow_id in values


async def _running(handle: ExperimentHandle) -> None:
    async with asyncio.timeout(20):
        while (await handle.status()).state != State.RUNNING:
            await asyncio.sleep(0.1)


async def test_each_end_has_its_event(environment: FabricEnvironment, fabric: Fabric) -> None:
    """A success, a failure and a cancellation leave a start and an end with every field."""
    good = await fabric.submit(shell("true"))
    bad = await fabric.submit(shell("exit 3"))
    ugly = await fabric.submit(shell("sleep 60"))
    await good.result()
    with pytest.raises(ExperimentFailed):
        await bad.result()
    await _running(ugly)
    await ugly.cancel()
    with pytest.raises(ExperimentCanceled):
        await ugly.result()

    found = [events(environment, handle.id) for handle in (good, bad, ugly)]

    assert [[row["event"] for row in rows] for rows in found] == [
        ["task_started", "task_completed"],
        ["task_started", "task_failed"],
        ["task_started", "task_canceled"],
    ]
    assert [(rows[1]["outcome"], rows[1]["reason"]) for rows in found] == [
        ("SUCCEEDED", ""),
        ("FAILED", "EXIT_CODE"),
        ("CANCELED", ""),
    ]
    for start, end in found:
        assert start["tenant"] == end["tenant"] == "default"
        assert start["class"] == end["class"] == "process"
        assert start["backend"] == end["backend"]
        assert start["epoch"] == end["epoch"] == 1
        assert start["run_id"] == end["run_id"]
        assert end["duration_s"] >= 0


async def test_every_log_line_is_json_with_ids(
    environment: FabricEnvironment, fabric: Fabric
) -> None:
    """A worker whose standard error is a file logs objects that name their task."""
    handle = await fabric.submit(shell("true"))
    await handle.result()

    found = [line for line in lines(environment) if line.get("request_id") == handle.id]

    for line in lines(environment):
        assert {"at", "level", "logger", "message"} <= line.keys()
    assert len(found) == 2
    for line in found:
        assert (line["tenant"], line["epoch"]) == ("default", 1)
        assert line["workflow_id"] == handle.workflow_id
        assert line["run_id"]


async def test_text_lines_where_they_are_asked_for(short_folder: Path) -> None:
    """The variable and Temporal's own root flag both choose the format."""
    command = [sys.executable, "-m", "temporal_fabric.cli"]
    tail = ["worker", "--home", str(short_folder), "--address", "127.0.0.1:1"]
    code = "from temporal_fabric.observability.log_lines import configure; import logging; "
    code += "print(configure('auto')); logging.info('\\x1b[31mred')"

    flagged = subprocess.run(
        [*command, "--log-format", "text", *tail], capture_output=True, text=True, check=False
    )
    text = subprocess.run(
        [sys.executable, "-c", code.replace("auto", "text")],
        capture_output=True,
        text=True,
        check=True,
    )
    plain = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert flagged.returncode == 69
    assert plain.stdout == "True\n"
    assert json.loads(plain.stderr)["message"] == "\x1b[31mred"
    assert "\x1b" not in plain.stderr + text.stderr
    assert text.stderr.endswith("\\x1b[31mred\n")


async def test_an_event_log_that_cannot_be_written_fails_nothing(
    environment: FabricEnvironment, fabric: Fabric
) -> None:
    """The run succeeds while the log's place is taken by a folder."""
    path = environment.settings.logs / "events.jsonl"
    aside = path.with_name("aside")
    environment.stop_worker()
    path.rename(aside)
    path.mkdir()
    try:
        environment.start_worker()
        result = await (await fabric.submit(shell("true"))).result()
    finally:
        environment.stop_worker()
        path.rmdir()
        aside.rename(path)
        environment.start_worker()

    assert result.state == "SUCCEEDED"
    complaints = [line for line in lines(environment) if "event log" in line["message"]]
    assert len(complaints) == 1


def _write_many(path: Path, count: int) -> None:
    log = EventLog(path, file_bytes=2000)
    for number in range(count):
        log.write("task_started", {"number": number, "class": "process"})
    log.close()


async def test_the_event_log_is_rotated_by_size(tmp_path: Path) -> None:
    """No file grows beyond the limit, and a fixed number of them is kept."""
    await asyncio.to_thread(_write_many, tmp_path / "logs" / "events.jsonl", 400)

    files = sorted((tmp_path / "logs").iterdir())
    newest = (tmp_path / "logs" / "events.jsonl").read_text().splitlines()
    assert len(files) == 5
    assert all(file.stat().st_size <= 2000 for file in files)
    assert json.loads(newest[-1])["number"] == 399


async def test_a_full_disk_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """Events that do not fit are lost with one warning."""
    log = EventLog(Path("/dev/full"), file_bytes=0)
    with caplog.at_level(logging.WARNING):
        log.write("task_started", {})
        log.write("task_started", {})
    log.close()

    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_spans_reach_from_the_submission_into_the_payload(
    fabric: Fabric, collector: Collector
) -> None:
    """One trace: submit > acquire > attempt > payload, and the payload is told its span."""
    result = await (await fabric.submit(shell(SAY))).result()
    told = said(result.capsule)

    spans = await ended(collector, told.trace_id, "submit", "acquire", "attempt", "payload")

    assert spans["acquire"].parent_span_id == spans["submit"].span_id
    assert spans["attempt"].parent_span_id == spans["acquire"].span_id
    assert spans["payload"].parent_span_id == spans["attempt"].span_id
    assert spans["payload"].span_id.hex() == told.span_id
    assert spans["attempt"].start_time_unix_nano <= spans["payload"].start_time_unix_nano
    assert spans["payload"].end_time_unix_nano <= spans["attempt"].end_time_unix_nano
    assert collector.services == {"temporal-fabric"}


async def test_a_failed_payload_is_an_error_in_its_spans(
    fabric: Fabric, collector: Collector
) -> None:
    """The reason stands in the status of attempt and payload, not of the grant."""
    handle = await fabric.submit(shell(f"{SAY}; exit 4"))
    with pytest.raises(ExperimentFailed) as caught:
        await handle.result()
    told = said(caught.value.result["capsule"])

    spans = await ended(collector, told.trace_id, "submit", "acquire", "attempt", "payload")

    assert spans["payload"].status.message == spans["attempt"].status.message == "EXIT_CODE"
    assert spans["acquire"].status.message == ""


async def test_an_adopted_payload_keeps_its_span(
    environment: FabricEnvironment, fabric: Fabric, collector: Collector
) -> None:
    """A worker that dies leaves no second span: its successor ends the one that was begun."""
    handle = await fabric.submit(shell(f"{SAY}; sleep 4"))
    await _running(handle)
    # What the dead worker had not sent yet is lost with it.
    async with asyncio.timeout(20):
        while not any(_names(span, handle.workflow_id) for span in collector.spans):
            await asyncio.sleep(0.1)

    environment.kill_worker()
    environment.start_worker()
    result = await handle.result()

    told = said(result.capsule)
    spans = await ended(collector, told.trace_id, "submit", "acquire", "attempt", "payload")
    payloads = [span for span in collector.spans if span.trace_id.hex() == told.trace_id]
    assert spans["payload"].span_id.hex() == told.span_id
    assert sorted(span.name for span in payloads) == ["acquire", "attempt", "payload", "submit"]
    lasted = spans["payload"].end_time_unix_nano - spans["payload"].start_time_unix_nano
    assert lasted >= 4e9


async def test_a_start_without_a_trace_gets_one(
    environment: FabricEnvironment, fabric: Fabric, collector: Collector
) -> None:
    """Without a client of ours the trace follows from the run alone."""
    request_id = f"bare-{secrets.token_hex(4)}"
    client = await Client.connect(environment.address)
    handle = await client.start_workflow(
        "Experiment",
        shell(SAY, id=request_id),
        id=f"experiment/default/{request_id}",
        task_queue="fabric",
    )
    await handle.result()
    told = said((await fabric.get(request_id).status()).capsule)

    spans = await ended(collector, told.trace_id, "acquire", "attempt", "payload")
    assert told == RunTrace(handle.result_run_id or "").payload(1)
    assert spans["acquire"].parent_span_id == b""
    assert "submit" not in spans


async def test_the_command_line_hands_its_own_trace_on(environment: FabricEnvironment) -> None:
    """TRACEPARENT of the caller is the trace of the payload, also where nothing is exported."""
    caller = TraceParent(secrets.token_hex(16), secrets.token_hex(8))
    env = {k: v for k, v in environment.env.items() if not k.startswith("OTEL")}
    done = await asyncio.to_thread(
        subprocess.run,
        [
            *(sys.executable, "-m", "temporal_fabric.cli", "submit", "--follow", "-o", "json"),
            *("--address", environment.address, "--", "sh", "-c", SAY),
        ],
        env=env | {"TRACEPARENT": str(caller)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert said(json.loads(done.stdout)["capsule"]).trace_id == caller.trace_id


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        f"00-{'0' * 32}-{'1' * 16}-01",
        f"00-{'1' * 32}-{'0' * 16}-01",
        f"ff-{'1' * 32}-{'1' * 16}-01",
        f"00-{'A' * 32}-{'1' * 16}-01",
        f"00-{'1' * 32}-{'1' * 16}-01\n",
        f"00-{'1' * 32}-{'1' * 16}-01 LD_PRELOAD=x",
        None,
        7,
    ],
)
async def test_what_is_no_traceparent_is_nothing(text: object) -> None:
    """Headers and variables may hold anything."""
    assert TraceParent.parse(text) is None


async def test_doctor_tells_how_the_fabric_is_watched(environment: FabricEnvironment) -> None:
    """Metrics and traces have a line each, and a missing token is a failure with a remedy."""
    done = await asyncio.to_thread(
        environment.cli, "doctor", "--address", environment.address, "-o", "json"
    )
    environment.env["FABRIC_METRICS_TOKEN"], token = "", environment.env["FABRIC_METRICS_TOKEN"]
    without = await asyncio.to_thread(
        environment.cli, "doctor", "--address", environment.address, "-o", "json"
    )
    environment.env["FABRIC_METRICS_TOKEN"] = token

    checks = {check["name"]: check for check in json.loads(done.stdout)}
    failed = {check["name"]: check for check in json.loads(without.stdout)}["metrics"]
    assert checks["metrics"]["verdict"] == checks["tracing"]["verdict"] == "ok"
    assert "spans go to" in checks["tracing"]["detail"]
    assert failed["verdict"] == "fail"
    assert "FABRIC_METRICS_TOKEN" in failed["remedy"]
    assert os.environ.get("FABRIC_METRICS_TOKEN") is None
