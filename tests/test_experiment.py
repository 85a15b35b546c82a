"""One experiment from submission to capsule, on a real server and with a real worker."""

from __future__ import annotations

import asyncio
import json
import os
import time
from typing import TYPE_CHECKING

import pytest

from temporal_fabric import Capsule, ExperimentCanceled, ExperimentFailed, RequestRejected
from temporal_fabric.states import State
from tests.bodies import process, python, shell

if TYPE_CHECKING:
    from pathlib import Path

    from temporal_fabric.client import Fabric
    from temporal_fabric.handle import ExperimentHandle
    from temporal_fabric.testing.environment import FabricEnvironment

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def _until(handle: ExperimentHandle, state: State, limit_s: float = 20.0) -> None:
    deadline = time.monotonic() + limit_s
    while (await handle.status()).state != state:
        assert time.monotonic() < deadline, await handle.status()
        await asyncio.sleep(0.1)


async def test_success_leaves_a_whole_capsule(fabric: Fabric) -> None:
    """A run that ends well has its output, its logs, its record and a manifest over all."""
    body = shell(
        "echo hello; echo oops >&2; cd $FABRIC_OUTPUT_DIR; mkdir d; echo 42 > d/n",
        outputs=[{"source_path": "/output/d/n"}],
    )

    result = await (await fabric.submit(body)).result()

    capsule = Capsule.open(result.capsule)
    assert result.state == "SUCCEEDED"
    assert capsule.verify() == []
    assert {entry.path for entry in capsule.manifest.files} == {
        "request.json",
        "result.json",
        "events.jsonl",
        "events.parquet",
        "telemetry.parquet",
        "logs/1/stdout.log",
        "logs/1/stderr.log",
        "artifacts/d/n",
    }
    assert (capsule.folder / "logs/1/stdout.log").read_text() == "hello\n"
    assert (capsule.folder / "artifacts/d/n").read_text() == "42\n"
    assert [output.path for output in result.outputs] == ["d/n"]


async def test_the_states_come_in_order_with_times(fabric: Fabric) -> None:
    """The timeline is legal, timed, and the same in result, query and capsule."""
    handle = await fabric.submit(shell("true"))

    result = await handle.result()

    states = [moment.state for moment in result.timeline]
    times = [moment.at for moment in result.timeline]
    status = await handle.status()
    events = (Capsule.open(result.capsule).folder / "events.jsonl").read_text().splitlines()
    assert states == ["QUEUED", "PREPARING", "RUNNING", "COLLECTING", "SUCCEEDED"]
    assert times == sorted(times)
    assert [moment["state"] for moment in status.timeline] == states
    assert [json.loads(line)["state"] for line in events] == states


@pytest.mark.parametrize(
    ("body", "reason", "exit_code", "words"),
    [
        (shell("echo why >&2; exit 3"), "EXIT_CODE", 3, "code 3"),
        (shell("kill -SEGV $$"), "SIGNAL", None, "SIGSEGV"),
        (shell("exit 137"), "EXIT_CODE", 137, "code 137"),
        (process("/no/such/program"), "SETUP", None, "No such file"),
        (shell("true", outputs=[{"source_path": "gone"}]), "OUTPUT_MISSING", 0, "gone"),
        (shell("ln -s /etc/passwd $FABRIC_OUTPUT_DIR/x"), "OUTPUT_MISSING", 0, "regular file"),
        (shell("exec sleep 60", limits={"wall_s": 1, "grace_s": 1}), "TIMEOUT", None, "wall limit"),
        (shell("echo no money > $FABRIC_ERROR_FILE; exit 1"), "EXIT_CODE", 1, "code 1"),
    ],
    ids=["exit", "signal", "exit-137", "setup", "output", "link", "timeout", "error-file"],
)
async def test_a_failure_has_reason_code_and_capsule(
    fabric: Fabric, body: dict[str, object], reason: str, exit_code: int | None, words: str
) -> None:
    """A payload's failure is told apart from every other, and leaves a capsule as well."""
    handle = await fabric.submit(body)

    with pytest.raises(ExperimentFailed) as caught:
        await handle.result()

    status = await handle.status()
    assert (caught.value.reason, caught.value.exit_code) == (reason, exit_code)
    assert words in str(caught.value)
    assert (status.state, status.reason) == ("FAILED", reason)
    assert Capsule.open(caught.value.result["capsule"]).verify() == []


async def test_stderr_excerpt_and_error_file(fabric: Fabric) -> None:
    """The failure carries what the payload said, the error file before standard error."""
    said = await fabric.submit(shell("printf 'bad \\033[31mred' >&2; exit 1"))
    written = await fabric.submit(shell("echo x >&2; echo precise > $FABRIC_ERROR_FILE; exit 1"))

    with pytest.raises(ExperimentFailed) as first:
        await said.result()
    with pytest.raises(ExperimentFailed) as second:
        await written.result()

    assert first.value.stderr_excerpt == "bad \\x1b[31mred"
    assert second.value.stderr_excerpt == "precise"


async def test_retry_backs_off_under_new_epochs(fabric: Fabric) -> None:
    """A failing payload is tried again under a new epoch and finds its checkpoint."""
    code = (
        "import os, pathlib, sys\n"
        "mark = pathlib.Path(os.environ['FABRIC_CHECKPOINT_DIR'], 'tries')\n"
        "tries = int(mark.read_text()) + 1 if mark.exists() else 1\n"
        "mark.write_text(str(tries))\n"
        "print(os.environ['FABRIC_EPOCH'], os.environ['FABRIC_ATTEMPT'])\n"
        "sys.exit(0 if tries == 3 else 9)\n"
    )
    body = python(code, retry={"max_attempts": 3, "initial_interval_s": 0.2, "backoff": 1})

    result = await (await fabric.submit(body)).result()

    capsule = Capsule.open(result.capsule)
    assert [attempt.epoch for attempt in result.attempts] == [1, 2, 3]
    assert [attempt.exit_code for attempt in result.attempts] == [9, 9, 0]
    assert (capsule.folder / "logs/3/stdout.log").read_text() == "3 3\n"
    assert "RETRYING" in [moment.state for moment in result.timeline]


async def test_retry_is_limited_and_selective(fabric: Fabric) -> None:
    """Attempts end at max_attempts, and a reason that is not listed is not retried."""
    retry = {"max_attempts": 2, "initial_interval_s": 0.1}
    limited = await fabric.submit(shell("exit 1", retry=retry))
    unlisted = await fabric.submit(shell("exit 1", retry=retry | {"on": ["TIMEOUT"]}))

    with pytest.raises(ExperimentFailed) as first:
        await limited.result()
    with pytest.raises(ExperimentFailed) as second:
        await unlisted.result()

    assert len(first.value.result["attempts"]) == 2
    assert len(second.value.result["attempts"]) == 1


async def test_cancel_kills_the_whole_tree_first(fabric: Fabric, tmp_path: Path) -> None:
    """CANCELED means that nothing of the payload runs, not even a daemon that ignores TERM."""
    mark = tmp_path / "alive"
    script = (
        "trap '' TERM\n"
        f"setsid sh -c 'trap \"\" TERM; while :; do date +%s%N > {mark}; sleep 0.05; done' &\n"
        "wait; sleep 60\n"
    )
    handle = await fabric.submit(shell(script, limits={"grace_s": 0.5}))
    await _until(handle, State.RUNNING)
    while not mark.exists():
        await asyncio.sleep(0.05)

    await handle.cancel()
    with pytest.raises(ExperimentCanceled):
        await handle.result()

    last = mark.read_text()
    await asyncio.sleep(0.3)
    status = await handle.status()
    assert mark.read_text() == last
    assert [moment["state"] for moment in status.timeline][-2:] == ["CANCELLING", "CANCELED"]
    assert Capsule.open(status.capsule).result["state"] == "CANCELED"


async def test_cancel_in_backoff(fabric: Fabric) -> None:
    """A cancellation during the pause between attempts takes effect at once."""
    handle = await fabric.submit(
        shell(
            "exit 1",
            retry={"max_attempts": 5, "initial_interval_s": 3600, "max_interval_s": 3600},
        )
    )
    await _until(handle, State.RETRYING)

    await handle.cancel()

    with pytest.raises(ExperimentCanceled):
        await asyncio.wait_for(handle.result(), 15)


async def test_same_body_is_the_same_experiment(fabric: Fabric) -> None:
    """Submitting again while it runs and after it ended gives one run, one epoch."""
    body = shell("sleep 0.5")

    handles = await asyncio.gather(*(fabric.submit(body) for _ in range(5)))
    results = await asyncio.gather(*(handle.result() for handle in handles))
    again = await (await fabric.submit(body)).result()

    assert {result.ended_at for result in results} == {again.ended_at}
    assert again.epoch == 1


async def test_another_body_under_the_id_conflicts(fabric: Fabric) -> None:
    """An id belongs to one body, also after it ended."""
    body = shell("true")
    await (await fabric.submit(body)).result()

    with pytest.raises(RequestRejected) as caught:
        await fabric.submit(body | {"priority": 9})

    assert [problem.code for problem in caught.value.problems] == ["E_CONFLICT"]


async def test_what_no_backend_can_run_is_refused(fabric: Fabric) -> None:
    """An impossible request is refused with verdict and remedy, and leaves nothing behind."""
    resources = [{"type": "cpu", "cores": 10000}]
    body = shell("true", requirements={"type": "computation", "resources": resources})

    with pytest.raises(RequestRejected) as caught:
        await fabric.submit(body)

    handle = fabric.get(str(body["id"]))
    assert caught.value.code == "E_NO_BACKEND"
    assert "local@" in str(caught.value)
    assert "/requirements/resources/0/cores" in str(caught.value)
    assert not await handle.exists()


async def test_a_direct_start_of_the_impossible_fails_with_the_code(fabric: Fabric) -> None:
    """Without the check at submission the run itself fails, and no record is opened."""
    body = shell("true", backends=["elsewhere"])
    handle = await fabric.submit(body, check=False)

    with pytest.raises(RequestRejected) as caught:
        await handle.result()

    record = fabric.record(handle.tenant, handle.id)
    assert caught.value.code == "E_NO_BACKEND"
    assert record is not None
    assert await record.digest() is None


async def test_the_payload_sees_its_variables_and_no_others(
    fabric: Fabric, environment: FabricEnvironment
) -> None:
    """The FABRIC variables are set, the worker's own environment is not handed down."""
    body = python("import os, json; print(json.dumps(dict(os.environ)))", env={"MINE": "1"})
    result = await (await fabric.submit(body)).result()

    text = (Capsule.open(result.capsule).folder / "logs/1/stdout.log").read_text()
    seen = json.loads(text)
    assert seen["MINE"] == "1"
    assert seen["FABRIC_REQUEST_ID"] == body["id"]
    assert seen["FABRIC_OUTPUT_DIR"].startswith(str(environment.home))
    assert not {"TEMPORAL_ADDRESS", "FABRIC_HOME", "PYTEST_CURRENT_TEST"} & seen.keys()


async def test_the_host_keeps_nothing_of_a_sealed_run(
    fabric: Fabric, environment: FabricEnvironment
) -> None:
    """Working folders go once the capsule holds everything."""
    handle = await fabric.submit(shell("echo x > big"))
    await handle.result()

    assert not (environment.settings.runs / handle.tenant / handle.id).exists()


async def test_more_than_the_slots_wait_their_turn(fabric: Fabric, tmp_path: Path) -> None:
    """Experiments beyond the backend's places stay QUEUED, and all of them run."""
    log = tmp_path / "log"
    script = f"echo + >> {log}; sleep 0.4; echo - >> {log}"
    handles = [await fabric.submit(shell(script)) for _ in range(6)]

    await asyncio.gather(*(handle.result() for handle in handles))

    running = most = 0
    for sign in log.read_text().split():
        running += 1 if sign == "+" else -1
        most = max(most, running)
    assert most <= (os.cpu_count() or 1)
