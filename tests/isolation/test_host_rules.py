"""What a host's owner decides, and what the host says of itself."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from temporal_fabric import Capsule, Fabric, RequestRejected
from temporal_fabric.connection import connect
from temporal_fabric.testing.environment import FabricEnvironment
from tests.bodies import process, python

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def strict(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[FabricEnvironment, Fabric]]:
    """A host that runs nothing outside a sandbox, with a network and a folder to be read."""
    models = tmp_path_factory.mktemp("models")
    (models / "weights").write_text("0.5")
    options = f'isolation = "sandbox"\nnetwork = true\nread = ["{models}"]\n'
    config = f"[backends.local.options]\n{options}"
    async with FabricEnvironment.fresh(config=config) as found:
        client = await connect(found.settings, address=found.address)
        yield (found, Fabric(client, found.settings))


def _doctor(environment: FabricEnvironment, **env: str) -> dict[str, Any]:
    environment.env |= env
    checks = json.loads(environment.cli("doctor", "-o", "json").stdout)
    return next(check for check in checks if check["name"] == "isolation")


@pytest.mark.usefixtures("needs_bubblewrap")
async def test_the_host_may_demand_a_sandbox(strict: tuple[FabricEnvironment, Fabric]) -> None:
    """A request that names no level gets the host's, and one that asks for less is refused."""
    environment, fabric = strict
    result = await (await fabric.submit(python("import os; print(os.getpid())"))).result()
    log = Capsule.open(result.capsule).folder / "logs/1/stdout.log"

    with pytest.raises(RequestRejected) as caught:
        await fabric.submit(process("true", isolation="limits"))

    request = environment.home / "request.json"
    request.write_text(json.dumps(process("true", isolation="none")))
    dry = environment.cli("submit", "--dry-run", str(request))

    assert log.read_text() == "2\n"
    assert dry.returncode == 2
    assert "E_ISOLATION; the nearest change that would fit" in dry.stdout + dry.stderr
    assert caught.value.code == "E_ISOLATION"
    assert "runs nothing of tenant 'default' below isolation 'sandbox'" in str(caught.value)


@pytest.mark.usefixtures("needs_bubblewrap")
async def test_a_flow_brings_no_code_past_the_sandbox(
    strict: tuple[FabricEnvironment, Fabric],
) -> None:
    """A function of a specification is refused with its path where the host demands a sandbox."""
    environment, _ = strict
    energy = {
        "state": {"x": {"shape": [4]}},
        "operators": {"A": {"type": "own", "entry_point": "jax.numpy:sin"}},
        "terms": [{"type": "quadratic", "operator": "A"}],
    }
    request = environment.home / "flow.json"
    for operators in (energy["operators"], {"A": {"type": "identity"}}):
        body = {"id": "f", "payload": {"flow": {"energy": energy | {"operators": operators}}}}
        request.write_text(json.dumps(body))
        planned = await asyncio.to_thread(environment.cli, "plan", str(request))
        said = planned.stdout + planned.stderr
        assert ("/payload/flow/energy/operators/A/entry_point" in said) == (
            operators is energy["operators"]
        ), said


@pytest.mark.usefixtures("needs_bubblewrap")
async def test_the_host_may_allow_more(strict: tuple[FabricEnvironment, Fabric]) -> None:
    """The owner's folders can be read, and the network is there for whoever asks for it."""
    environment, fabric = strict
    models = environment.home.joinpath("fabric.toml").read_text().split('"')[3]
    code = f"import os, socket; print(open('{models}/weights').read())\n"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code += f"socket.create_connection(('127.0.0.1', {port})); print('connected')"
        asked = await fabric.submit(python(code, network="outbound"))
        result = await asyncio.wait_for(asked.result(), 30)

    log = Capsule.open(result.capsule).folder / "logs/1/stdout.log"
    assert log.read_text() == "0.5\nconnected\n"


async def test_doctor_says_what_this_host_can_hold(
    own_environment: FabricEnvironment, tmp_path: Any
) -> None:
    """Each level that does not work has its reason and its remedy; without a launcher too."""
    alone = _doctor(own_environment, PATH=str(tmp_path), FABRIC_LAUNCHER_CGROUP="none")

    assert alone["verdict"] == "warn"
    assert alone["detail"] == (
        "none; a request that names none gets none, and of a tenant other than 'default' sandbox"
    )
    assert "no sandbox: bubblewrap is not installed: install the package" in alone["remedy"]
    if os.geteuid() == 0:
        assert "no limits: this host's control groups do not limit pids" in alone["remedy"]


async def test_doctor_asks_the_launcher(strict: tuple[FabricEnvironment, Fabric]) -> None:
    """Where a launcher runs its own answer counts; a level that is demanded must work."""
    environment, _ = strict
    before = dict(environment.env)
    broken = _doctor(environment, PATH="/nowhere", FABRIC_LAUNCHER_CGROUP="none")
    environment.env.clear()
    environment.env.update(before)

    assert broken["verdict"] == "fail"
    assert "a request that names none gets sandbox" in broken["detail"]


async def test_wrong_options_are_all_named() -> None:
    """A worker with a wrong option does not start, and says everything that is wrong."""
    options = 'isolation = "magic"\nnetwork = "yes"\nread = ["models"]\nfoo = 1\nothers = 2\n'
    config = f"[backends.local.options]\n{options}"
    async with FabricEnvironment.fresh(config=config, worker=False) as found:
        with pytest.raises(RuntimeError) as caught:
            found.start_worker()

    said = str(caught.value)
    for words in (
        "isolation is one of",
        "others is one of",
        "network is true",
        "read is a list",
        "option 'foo'",
    ):
        assert words in said
    assert "/backends/local/options/isolation" in said
    assert "Traceback" not in said
