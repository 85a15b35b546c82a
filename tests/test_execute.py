"""``exec``: a command beside a live payload, from this host and from another."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import sys
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from temporal_fabric import Fabric, RequestRejected
from temporal_fabric.config import Settings
from temporal_fabric.connection import connect
from temporal_fabric.launcher import LauncherClient
from temporal_fabric.testing.environment import FabricEnvironment
from tests.bodies import shell
from tests.launcher.place import count_nappers, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from temporal_fabric.handle import ExperimentHandle

pytestmark = pytest.mark.asyncio(loop_scope="module")

CANARY = f"canary-{secrets.token_hex(8)}"
LASTS = "until [ -e $FABRIC_OUTPUT_DIR/done ]; do sleep 0.1; done"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def environment() -> AsyncIterator[FabricEnvironment]:
    """A worker that offers a secret."""
    config = '[secrets]\nenv = ["CANARY"]\n'
    async with FabricEnvironment.fresh({"CANARY": CANARY}, config=config) as found:
        yield found


async def _running(fabric: Fabric, script: str = LASTS, **more: object) -> ExperimentHandle:
    handle = await fabric.submit(shell(script, **more))
    async with asyncio.timeout(30):
        while (await handle.status()).state != "RUNNING":
            await asyncio.sleep(0.05)
    return handle


async def test_a_command_beside_a_payload(fabric: Fabric, environment: FabricEnvironment) -> None:
    """Its streams and exit code are the command's own; what it does the payload sees."""
    handle = await _running(fabric)
    script = "echo out; echo err >&2; pwd; touch $FABRIC_OUTPUT_DIR/done; exit 7"

    done = await asyncio.to_thread(environment.cli, "exec", handle.id, "--", "sh", "-c", script)
    result = await handle.result()

    assert (done.returncode, done.stderr) == (7, "err\n")
    assert done.stdout.splitlines()[0] == "out"
    assert done.stdout.splitlines()[1].endswith(f"{handle.id}/1/task")
    assert (result.state, [output.path for output in result.outputs]) == ("SUCCEEDED", ["done"])


async def test_output_comes_as_it_is_written(fabric: Fabric) -> None:
    """The first line is there while the command still runs: it waits for the answer."""
    handle = await _running(fabric)
    said: list[bytes] = []
    script = "echo first; until [ -e $FABRIC_OUTPUT_DIR/done ]; do sleep 0.1; done"
    output = fabric.settings.runs / "default" / handle.id / "1" / "output"

    def write(_: str, data: bytes) -> None:
        said.append(data)
        (output / "done").touch()

    end = await handle.execute("sh", "-c", script, write=write)

    # The payload ends by the same file: which of them is first is open.
    assert b"".join(said) == b"first\n"
    assert (end.exit_code, end.signal) in {(0, None), (None, 9)}


async def test_a_command_from_another_host(environment: FabricEnvironment, tmp_path: Path) -> None:
    """A client that shares no disk with the worker gets all of a large output."""
    elsewhere = Settings(home=tmp_path, store=(tmp_path / "store").as_uri())
    fabric = Fabric(await connect(elsewhere, address=environment.address), elsewhere)
    handle = await _running(fabric)
    said = bytearray()

    end = await handle.execute(
        "head", "-c", "700000", "/dev/zero", write=lambda _, d: said.extend(d)
    )
    await handle.cancel()

    assert (len(said), end.exit_code, end.error) == (700_000, 0, "")


async def test_secrets_are_neither_given_nor_shown(fabric: Fabric) -> None:
    """The variable is missing; read from the payload itself, whole or in halves, it is hidden."""
    given = [{"name": "TOKEN", "ref": "secret://env/CANARY", "as": "env"}]
    handle = await _running(fabric, f"export TOKEN; {LASTS}", secrets=given)
    said = bytearray()
    halves = f"printf {CANARY[:9]}; sleep 1; echo {CANARY[9:]}; echo [$TOKEN]; echo {CANARY} >&2"

    await handle.execute("sh", "-c", halves, write=lambda _, d: said.extend(d))
    await handle.cancel()

    assert sorted(said.decode().split()) == ["[]", "[redacted]", "[redacted]"]


async def test_no_command_where_nothing_runs(
    fabric: Fabric, environment: FabricEnvironment
) -> None:
    """Paused, queued and ended experiments refuse with E_CONFLICT, exit code 2, and say why."""
    handle = await _running(fabric)
    await handle.pause()
    with pytest.raises(RequestRejected, match="paused: resume it first"):
        await handle.execute("true")
    await handle.resume()
    again = await handle.execute("true")
    await handle.cancel()
    async with asyncio.timeout(30):
        while not (await handle.status(detail=False)).final:
            await asyncio.sleep(0.1)

    done = await asyncio.to_thread(environment.cli, "exec", handle.id, "--", "true")

    assert again.exit_code == 0
    assert done.returncode == 2
    assert "has ended: a command needs a live one" in done.stderr


async def test_a_program_that_is_not_there(fabric: Fabric, environment: FabricEnvironment) -> None:
    """127 as in a shell, with the reason; as JSON with every field."""
    handle = await _running(fabric)

    done = await asyncio.to_thread(environment.cli, "exec", handle.id, "--", "no-such")
    told = await asyncio.to_thread(
        environment.cli, "exec", "-o", "json", handle.id, "--", "sh", "-c", "echo x; kill -9 $$"
    )
    await handle.cancel()

    assert (done.returncode, done.stdout) == (127, "")
    assert done.stderr == "the command did not start: No such file or directory: 'no-such'\n"
    assert told.returncode == 137
    assert json.loads(told.stdout) == {
        "error": "",
        "exit_code": None,
        "signal": 9,
        "stderr": "",
        "stdout": "x\n",
    }


async def test_ctrl_c_ends_the_command_and_not_the_payload(
    fabric: Fabric, environment: FabricEnvironment
) -> None:
    """Interrupted in the middle: the command is gone, the payload goes on."""
    handle = await _running(fabric)
    nap = f"600.{secrets.randbelow(10**9)}"
    argv = [sys.executable, "-m", "temporal_fabric.cli", "exec", handle.id, "--", "sleep", nap]
    person = await asyncio.create_subprocess_exec(*argv, env=environment.env)
    assert await until(lambda: count_nappers(nap) == 2, 30)  # the person's own line names it too

    person.send_signal(signal.SIGINT)
    code = await person.wait()

    assert code == 130
    assert await until(lambda: count_nappers(nap) == 0)
    assert (await handle.status(detail=False)).state == "RUNNING"
    await handle.cancel()


async def test_a_command_outlives_its_worker(
    fabric: Fabric, environment: FabricEnvironment
) -> None:
    """A SIGKILLed worker is replaced in the middle: nothing of the output is lost or doubled."""
    handle = await _running(fabric)
    said = bytearray()
    script = "for i in 1 2 3 4; do echo $i; sleep 1; done"
    asking = asyncio.create_task(
        handle.execute("sh", "-c", script, write=lambda _, data: said.extend(data))
    )
    assert await until(lambda: bool(said), 20)

    environment.kill_worker()
    environment.start_worker()
    end = await asking
    await handle.cancel()

    assert (bytes(said), end.exit_code) == (b"1\n2\n3\n4\n", 0)


async def test_the_launchers_death_is_told(fabric: Fabric, environment: FabricEnvironment) -> None:
    """It takes payload and command along; whoever waits hears that the command is gone."""
    handle = await _running(fabric)
    asking = asyncio.create_task(handle.execute("sleep", "600"))
    await asyncio.sleep(1)

    launcher = await LauncherClient.connect(environment.settings.launcher, start=False)
    os.kill(launcher.launcher_pid, signal.SIGKILL)
    await launcher.aclose()

    with pytest.raises(RequestRejected, match="no such command"):
        await asking
