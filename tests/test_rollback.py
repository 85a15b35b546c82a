"""Rollback: what was done is undone, the last first, each once, whatever dies meanwhile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from temporal_fabric import Capsule, ExperimentCanceled, ExperimentFailed, Fabric, RequestRejected
from temporal_fabric.connection import connect
from temporal_fabric.testing.evidence import EvidenceLedger
from tests.bodies import REPORTER, process, shell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from temporal_fabric.handle import ExperimentHandle
    from temporal_fabric.testing.environment import FabricEnvironment

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ledger(environment: FabricEnvironment) -> AsyncIterator[EvidenceLedger]:
    """An evidence ledger in a process of its own."""
    found = EvidenceLedger(environment.home)
    yield found
    found.close()


def _undo(name: str, command: list[str] | None = None, **more: Any) -> dict[str, Any]:
    return {"name": name, "command": command or [*REPORTER, f"undo {name}"], **more}


def _body(ledger: EvidenceLedger, command: list[str], *rollback: dict[str, Any]) -> dict[str, Any]:
    return process(
        *command,
        env={"EVIDENCE": str(ledger.socket)},
        rollback=list(rollback),
        limits={"grace_s": 1},
        retry={"initial_interval_s": 0.1},
    )


def _ran(ledger: EvidenceLedger, handle: ExperimentHandle) -> list[tuple[str, str]]:
    return [(row["event"], row["epoch"]) for row in ledger.lines(id=handle.id)]


async def _until(handle: ExperimentHandle, state: str) -> None:
    async with asyncio.timeout(30):
        while (await handle.status()).state != state:
            await asyncio.sleep(0.1)


async def _failed(handle: ExperimentHandle) -> ExperimentFailed:
    with pytest.raises(ExperimentFailed) as caught:
        await asyncio.wait_for(handle.result(), 60)
    return caught.value


async def test_after_a_failure_the_last_first(fabric: Fabric, ledger: EvidenceLedger) -> None:
    """Each runs once under an epoch of its own; result, capsule and events tell of it."""
    script = ["/bin/sh", "-c", "exit 3"]
    handle = await fabric.submit(_body(ledger, script, _undo("first"), _undo("second")))
    end = await _failed(handle)
    capsule = Capsule.open(end.result["capsule"])
    events = [event async for event in handle.events() if event["event"] == "compensation"]

    assert _ran(ledger, handle) == [("undo second", "2"), ("undo first", "3")]
    assert (end.reason, end.exit_code, end.result["epoch"]) == ("EXIT_CODE", 3, 1)
    done = end.result["compensations"]
    assert [(each["name"], each["ok"]) for each in done] == [("second", True), ("first", True)]
    assert len(end.result["attempts"]) == 1
    assert [event["detail"]["compensation"] for event in events] == ["second", "first"]
    assert {"logs/2/stdout.log", "logs/3/stdout.log"} <= {e.path for e in capsule.manifest.files}
    assert capsule.verify() == []


async def test_it_is_told_what_for(fabric: Fabric, ledger: EvidenceLedger) -> None:
    """A compensation has the payload's variables and checkpoints, its own name, the reason."""
    script = 'echo here > "$FABRIC_CHECKPOINT_DIR/place"; exit 3'
    look = 'echo "$FABRIC_COMPENSATION $FABRIC_REASON $OWN"; cat "$FABRIC_CHECKPOINT_DIR/place"'
    undo = _undo("look", ["/bin/sh", "-c", look], env={"OWN": "mine"})
    handle = await fabric.submit(_body(ledger, ["/bin/sh", "-c", script], undo))
    end = await _failed(handle)

    said = Capsule.open(end.result["capsule"]).read("logs/2/stdout.log").decode()
    assert said == "look EXIT_CODE mine\nhere\n"


async def test_after_a_cancellation(fabric: Fabric, ledger: EvidenceLedger) -> None:
    """It runs once nothing of the payload does, and a second cancellation does not stop it."""
    slow = [*REPORTER[:-1], f"import time; time.sleep(2)\n{REPORTER[-1]}", "undo"]
    handle = await fabric.submit(_body(ledger, ["/bin/sleep", "60"], _undo("slow", slow)))
    await _until(handle, "RUNNING")
    await handle.cancel()
    await _until(handle, "CANCELLING")
    await handle.cancel()
    end = await _failed(handle)

    assert isinstance(end, ExperimentCanceled)
    assert _ran(ledger, handle) == [("undo", "2")]
    assert Capsule.open(end.result["capsule"]).result["state"] == "CANCELED"


async def test_a_failing_one_is_tried_again_then_reported(
    fabric: Fabric, ledger: EvidenceLedger
) -> None:
    """The others run all the same; the run keeps its own reason, and says what is left."""
    bad = _undo("bad", ["/bin/sh", "-c", "exit 9"], max_attempts=2)
    script = ["/bin/sh", "-c", "exit 3"]
    handle = await fabric.submit(_body(ledger, script, _undo("good"), bad))
    end = await _failed(handle)
    shown = (await handle.status()).compensations

    assert _ran(ledger, handle) == [("undo good", "4")]
    assert end.reason == "EXIT_CODE"
    assert "not rolled back: bad" in str(end)
    assert [(each["name"], each["ok"], len(each["attempts"])) for each in shown] == [
        ("bad", False, 2),
        ("good", True, 1),
    ]


async def test_a_cancelled_run_that_is_not_undone_failed(
    fabric: Fabric, ledger: EvidenceLedger
) -> None:
    """CANCELED would say that all is as before."""
    bad = _undo("bad", ["/bin/sh", "-c", "exit 9"], max_attempts=1)
    handle = await fabric.submit(_body(ledger, ["/bin/sleep", "60"], bad))
    await _until(handle, "RUNNING")
    await handle.cancel()
    end = await _failed(handle)

    assert not isinstance(end, ExperimentCanceled)
    assert end.reason == "ROLLBACK"


async def test_a_person_undoes_it_by_hand(fabric: Fabric, ledger: EvidenceLedger) -> None:
    """With `on_failure: hold` a person is asked; done by hand, the run is CANCELED."""
    bad = _undo("arm", ["/bin/sh", "-c", "exit 9"], max_attempts=1, on_failure="hold")
    handle = await fabric.submit(_body(ledger, ["/bin/sleep", "60"], _undo("good"), bad))
    await _until(handle, "RUNNING")
    await handle.cancel()
    await _until(handle, "HELD")
    asked = (await handle.status()).question["text"]
    before = _ran(ledger, handle)
    await handle.resolve("done", by="ada")
    end = await _failed(handle)

    assert (before, _ran(ledger, handle)) == ([], [("undo good", "3")])
    assert "The compensation arm has failed" in asked
    assert isinstance(end, ExperimentCanceled)


async def test_nothing_to_undo(fabric: Fabric, ledger: EvidenceLedger) -> None:
    """After a success nothing is undone."""
    handle = await fabric.submit(_body(ledger, ["/bin/true"], _undo("never")))
    result = await handle.result()
    await asyncio.sleep(0.5)

    assert (result.compensations, _ran(ledger, handle)) == ([], [])


async def test_two_of_one_name_are_refused(fabric: Fabric) -> None:
    """A name says which, so it may stand once."""
    body = shell("true", rollback=[_undo("one"), _undo("one")])
    with pytest.raises(RequestRejected) as caught:
        await fabric.submit(body)

    assert [(p.code, p.path) for p in caught.value.problems] == [("E_CONFLICT", "/rollback/1/name")]


async def test_a_worker_that_dies_meanwhile(
    environment: FabricEnvironment, ledger: EvidenceLedger
) -> None:
    """The compensation is adopted, not run again."""
    client = await connect(environment.settings, address=environment.address)
    report = REPORTER[-1]
    twice = f"import time, sys\n{report}\ntime.sleep(3)\nsys.argv[1] = 'undone'\n{report}"
    undo = _undo("long", [*REPORTER[:-1], twice, "undoing"])
    fabric = Fabric(client, environment.settings)
    handle = await fabric.submit(_body(ledger, ["/bin/sh", "-c", "exit 3"], undo))
    async with asyncio.timeout(30):
        while not _ran(ledger, handle):
            await asyncio.sleep(0.05)
    environment.kill_worker()
    await asyncio.to_thread(environment.start_worker)
    end = await _failed(handle)

    assert _ran(ledger, handle) == [("undoing", "2"), ("undone", "2")]
    assert end.result["compensations"][0]["ok"]
