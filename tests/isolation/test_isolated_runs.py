"""Isolation from a request to its capsule, on a real server with a real worker."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from temporal_fabric import Capsule, ExperimentFailed, RequestRejected
from temporal_fabric.states import State
from temporal_fabric.testing.environment import FabricEnvironment
from tests.bodies import function, process, python, shell
from tests.environments.packages import TinyPackage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from temporal_fabric.client import Fabric

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("needs_bubblewrap"),
]

SECRET = "canary-in-the-sandbox"  # noqa: S105 - the point of the test

WORK = """
import json, os, pathlib, sys
given = pathlib.Path(os.environ["FABRIC_INPUT_DIR"], "number")
with open(os.environ["FABRIC_TELEMETRY"], "a") as file:
    file.write(json.dumps({"step": 1, "loss": 0.5}) + "\\n")
pathlib.Path(os.environ["FABRIC_OUTPUT_DIR"], "double").write_text(str(2 * int(given.read_text())))
pathlib.Path(os.environ["FABRIC_CHECKPOINT_DIR"], "at").write_text("1")
pathlib.Path("/tmp/scratch").write_text("x")
try:
    given.write_text("changed")
except OSError as exc:
    print("input:", exc.strerror)
print("home:", os.environ["HOME"] == os.environ["FABRIC_TASK_DIR"] == os.getcwd())
"""

PROBE = """
import json, os, pathlib, socket
def connects(port):
    try:
        socket.create_connection(("127.0.0.1", port), 2).close()
    except OSError as exc:
        return type(exc).__name__
    return "connected"
def listed(path):
    try:
        return sorted(os.listdir(path))
    except OSError as exc:
        return type(exc).__name__
ports, home, other = json.loads(os.environ["PROBE"])
print(json.dumps([list(map(connects, ports)), listed(home), listed(home + "/runs"), listed(other)]))
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def environment() -> AsyncIterator[FabricEnvironment]:
    """A worker that serves metrics and offers a secret."""
    env = {"SANDBOX_CANARY": SECRET, "FABRIC_METRICS_PORT": "0", "FABRIC_METRICS_TOKEN": "t" * 16}
    config = '[secrets]\nenv = ["SANDBOX_CANARY"]\n'
    async with FabricEnvironment.fresh(env, config=config) as found:
        yield found


async def _said(fabric: Fabric, body: dict[str, Any]) -> str:
    result = await (await fabric.submit(body)).result()
    return (Capsule.open(result.capsule).folder / "logs/1/stdout.log").read_text()


async def _failure(fabric: Fabric, body: dict[str, Any]) -> ExperimentFailed:
    with pytest.raises(ExperimentFailed) as caught:
        await (await fabric.submit(body)).result()
    return caught.value


async def test_from_request_to_capsule(environment: FabricEnvironment, tmp_path: Path) -> None:
    """Inputs, outputs, telemetry, checkpoints and log work in a sandbox as outside one."""
    (tmp_path / "number").write_text("21")
    body = python(
        WORK,
        isolation="sandbox",
        inputs=[{"source_uri": (tmp_path / "number").as_uri(), "mount_path": "number"}],
        outputs=[{"source_path": "double"}],
    )
    (tmp_path / "request.json").write_text(json.dumps(body))

    done = environment.cli("submit", "--follow", str(tmp_path / "request.json"))
    told = json.loads(environment.cli("result", body["id"], "-o", "json").stdout)

    capsule = Capsule.open(told["capsule"])
    assert done.returncode == 0, done.stderr
    assert capsule.verify() == []
    assert (capsule.folder / "artifacts/double").read_text() == "42"
    assert (capsule.folder / "checkpoints/at").read_text() == "1"
    log = (capsule.folder / "logs/1/stdout.log").read_text()
    assert log == "input: Read-only file system\nhome: True\n"
    asked = ("SELECT value FROM telemetry WHERE name = 'loss'", body["id"], "-o", "json")
    assert json.loads(environment.cli("capsule", "query", *asked).stdout) == [{"value": 0.5}]
    assert not (capsule.folder / "logs/1/error.txt").exists()


async def test_a_function_in_an_environment(fabric: Fabric, tmp_path: Path) -> None:
    """A sandboxed function has its packages and its own variables, and its value comes back."""
    package = TinyPackage(tmp_path)
    code = "import os, tiny\nnames = ('VIRTUAL_ENV', 'PATH', 'HOME', 'TMPDIR')\n"
    code += "def main(): return [tiny.NUMBER, os.getpid(), *map(os.environ.get, names)]"
    body = function(
        code,
        isolation="sandbox",
        env={"PATH": "/usr/bin", "HOME": "/elsewhere"},
        environment={"requirements": [package.requirement]},
    )
    number, pid, place, *rest = await (await fabric.submit(body)).value()

    assert (number, pid) == (1, 2)
    assert rest == [f"{place}/bin:/usr/bin", "/elsewhere", "/tmp"]  # noqa: S108 - its own


async def test_a_function_says_what_went_wrong(fabric: Fabric) -> None:
    """An exception of a sandboxed function is the failure's excerpt, its code the exit code."""
    failed = await _failure(
        fabric, function("def main(): raise ValueError('no')", isolation="sandbox")
    )

    assert (failed.reason, failed.exit_code) == ("EXIT_CODE", 1)
    assert failed.stderr_excerpt == "ValueError: no"


async def test_cannot_reach_the_fabric(fabric: Fabric, environment: FabricEnvironment) -> None:
    """Neither server nor metrics nor home nor another tenant's folder exist in a sandbox."""
    waits = shell("echo secret > mine; while [ ! -e go ]; do sleep 0.1; done", tenant="acme")
    other = await fabric.submit(waits)
    while (await other.status()).state != State.RUNNING:
        await asyncio.sleep(0.1)
    theirs = environment.settings.runs / "acme" / other.id / "1" / "task"
    log = (environment.settings.logs / "worker.log").read_text()
    metrics = re.search(r"metrics +http://[^:]+:(\d+)", log)
    assert metrics is not None, log
    ports = [int(environment.address.rpartition(":")[2]), int(metrics[1])]
    asked = json.dumps([ports, str(environment.home), str(theirs)])

    body = python(PROBE, isolation="sandbox", env={"PROBE": asked})
    found = json.loads(await _said(fabric, body))
    (theirs / "go").touch()
    await other.result()

    assert found[0] == ["ConnectionRefusedError"] * len(ports)
    assert found[1:] == [["runs"], ["default"], "FileNotFoundError"]


async def test_other_tenants_are_in_a_sandbox(fabric: Fabric) -> None:
    """A tenant that is not the host's owner gets a sandbox unasked, and nothing less on demand."""
    theirs = python("import os; print(os.getpid())", tenant="acme")
    number = await _said(fabric, theirs)

    with pytest.raises(RequestRejected) as caught:
        await fabric.submit(process("true", isolation="limits") | {"tenant": "acme"})

    assert number == "2\n"
    assert caught.value.code == "E_ISOLATION"
    assert "of tenant 'acme' below isolation 'sandbox'" in str(caught.value)


async def test_secrets_arrive_and_are_hidden(fabric: Fabric) -> None:
    """A secret's file is there, readable and nowhere else; the output is filtered as ever."""
    body = shell(
        'cat "$FABRIC_SECRETS_DIR/key"; echo; touch "$FABRIC_SECRETS_DIR/x" || echo read-only',
        isolation="sandbox",
        secrets=[{"name": "key", "ref": "secret://env/SANDBOX_CANARY", "as": "file"}],
    )

    assert await _said(fabric, body) == "[redacted]\nread-only\n"


@pytest.mark.parametrize("isolation", ["limits", "sandbox"])
@pytest.mark.parametrize("end", ["", "; exit 0", "; exit 3"])
async def test_memory_kills_fail_with_oom(fabric: Fabric, isolation: str, end: str) -> None:
    """OOM is told also where a child died and its parent went on to any end."""
    eats = f"{sys.executable} -I -S -c 'bytes([1]) * 10**9'"
    body = shell(
        f"exec {eats}" if not end else f"{eats}{end}",
        isolation=isolation,
        requirements={"type": "computation", "resources": {"memory": "100MB", "cpu": 1}},
    )

    failed = await _failure(fabric, body)

    assert failed.reason == "OOM"
    assert "killed for memory" in str(failed)


async def test_a_number_alone_is_a_limit(fabric: Fabric) -> None:
    """A limit given without a level is enforced; resources without a level only place."""
    code = "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    cheap = {"type": "computation", "resources": {"memory": "1MB"}}

    assert await _said(fabric, python(code, limits={"open_files": 77})) == "77\n"
    assert (
        await _said(fabric, python("print(len(bytes(10**8)))", requirements=cheap)) == "100000000\n"
    )


REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"network": "outbound", "isolation": "sandbox"}, "allows no network in a sandbox"),
    ({"network": "none"}, "the network is not cut off with isolation 'none'"),
    ({"isolation": "none", "limits": {"pids": 5}}, "'pids' is not enforced with isolation 'none'"),
    ({"isolation": "limits", "limits": {"open_files": 2**29}}, "open files here at most"),
    ({"isolation": "sandbox", "workdir": "/home"}, "'/home' is not visible in the sandbox"),
]


@pytest.mark.parametrize(("settings", "words"), REFUSALS)
async def test_what_cannot_be_enforced_is_refused(
    fabric: Fabric, settings: dict[str, Any], words: str
) -> None:
    """The code is E_ISOLATION, the reason and the change are told, and nothing is started."""
    body = process("true", **settings)

    with pytest.raises(RequestRejected) as caught:
        await fabric.submit(body)

    assert caught.value.code == "E_ISOLATION"
    assert words in str(caught.value)
    assert "The nearest change that would fit" in str(caught.value)
    assert not await fabric.get(str(body["id"])).exists()


async def test_a_command_beside_a_sandboxed_payload(
    fabric: Fabric, environment: FabricEnvironment
) -> None:
    """`exec` sees the payload's own folders, nothing else of the host, and is nobody."""
    body = shell("until [ -e $FABRIC_OUTPUT_DIR/done ]; do sleep 0.1; done", isolation="sandbox")
    handle = await fabric.submit(body)
    async with asyncio.timeout(30):
        while (await handle.status()).state != State.RUNNING:
            await asyncio.sleep(0.1)
    probe = (
        f"id -u; ls -A {environment.home} | tr '\\n' ' '; touch $FABRIC_OUTPUT_DIR/done; sleep 1"
    )

    done = await asyncio.to_thread(environment.cli, "exec", handle.id, "--", "sh", "-c", probe)
    result = await handle.result()

    assert done.stdout.startswith("65534\nruns "), done.stderr
    assert [output.path for output in result.outputs] == ["done"]
