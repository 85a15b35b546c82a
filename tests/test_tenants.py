"""Tenants of a team's server: who is known, how much is open, how fast it may come."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError

from temporal_fabric import Fabric, RequestRejected, names
from temporal_fabric.testing.environment import FabricEnvironment
from tests.bodies import shell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from temporal_fabric.handle import ExperimentHandle

pytestmark = pytest.mark.asyncio(loop_scope="module")

_CONFIG = """
[backends.local]
slots = 20
[backends.local.options]
others = "none"
[tenants.default]
[tenants.small]
max_open = 2
[tenants.burst]
max_open = 3
[tenants.slow]
max_per_minute = 2
[tenants.alice]
principals = ["alice@example.org"]
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def environment() -> AsyncIterator[FabricEnvironment]:
    """A server whose worker knows some tenants."""
    async with FabricEnvironment.fresh(config=_CONFIG) as found:
        yield found


def _kept(environment: FabricEnvironment, tenant: str) -> set[str]:
    """Return everything on disk that belongs to a tenant."""
    roots = [environment.home / kind / tenant for kind in ("requests", "capsules", "runs")]
    return {str(path) for root in roots for path in root.rglob("*")}


def _submit(
    environment: FabricEnvironment, folder: Path, body: dict[str, Any]
) -> tuple[int, dict[str, Any]]:
    path = folder / f"{body['id']}.json"
    path.write_text(json.dumps(body))
    done = environment.cli("submit", str(path), "-o", "json")
    answer = json.loads(done.stdout)
    return done.returncode, answer.get("problems", [answer])[0]


async def _direct(fabric: Fabric, body: dict[str, Any]) -> dict[str, Any]:
    """Start a workflow as Temporal's own client would, and return its only problem."""
    handle = await fabric.client.start_workflow(
        names.WORKFLOW_EXPERIMENT,
        body,
        id=names.workflow_id(body["tenant"], body["id"]),
        task_queue=names.QUEUE,
    )
    with pytest.raises(WorkflowFailureError) as caught:
        await handle.result()
    cause = caught.value.cause
    assert isinstance(cause, ApplicationError)
    assert cause.non_retryable
    (problem,) = cause.details[0]
    assert cause.type == problem["code"]
    return dict(problem)


async def _filled(fabric: Fabric, tenant: str, count: int) -> list[ExperimentHandle]:
    bodies = [shell("sleep 60", tenant=tenant) for _ in range(count)]
    return [await fabric.submit(body) for body in bodies]


async def _ended(handles: list[ExperimentHandle]) -> None:
    for handle in handles:
        await handle.cancel()
    for handle in handles:
        while not (await handle.status(detail=False)).final:
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("tenant", ["nobody", "alice"])
async def test_an_unknown_tenant_and_an_unknown_caller(
    fabric: Fabric, environment: FabricEnvironment, tmp_path: Path, tenant: str
) -> None:
    """E_TENANT by every door, and neither a record nor a capsule; no other tenant is named."""
    body = shell("true", tenant=tenant)

    direct = await _direct(fabric, body)
    if tenant == "nobody":  # who asks is known once it is started: the server says it then
        code, told = _submit(environment, tmp_path, body)
        assert (code, told["code"], told["path"]) == (2, "E_TENANT", "/tenant")
    with pytest.raises(RequestRejected, match="E_TENANT"):
        await (await fabric.submit(body)).result()

    assert (direct["code"], direct["actual"]) == ("E_TENANT", tenant)
    assert "small" not in json.dumps(direct)
    assert _kept(environment, tenant) == set()


async def test_another_tenants_output(
    fabric: Fabric, environment: FabricEnvironment, tmp_path: Path
) -> None:
    """A capsule of another tenant is E_TENANT at the input, at the command line and directly."""
    body = shell("true", tenant="default")
    given = {"source_uri": "capsule://small/a/x", "mount_path": "x"}
    body["payload"]["process"]["inputs"] = [given]
    before = _kept(environment, "default")

    code, told = _submit(environment, tmp_path, body)
    direct = await _direct(fabric, body)

    assert code == 2
    assert told == direct
    assert (told["code"], told["path"]) == ("E_TENANT", "/payload/process/inputs/0/source_uri")
    assert _kept(environment, "default") == before


async def test_as_many_open_as_allowed(
    fabric: Fabric, environment: FabricEnvironment, tmp_path: Path
) -> None:
    """E_QUOTA beyond max_open; the same id joins, and a refused one is accepted later."""
    handles = await _filled(fabric, "small", 2)
    before = _kept(environment, "small")
    third = shell("true", tenant="small")

    code, told = _submit(environment, tmp_path, third)
    direct = await _direct(fabric, third)
    same = _submit(environment, tmp_path, await handles[0].body())
    after = _kept(environment, "small")
    await _ended(handles)
    late = await (await fabric.submit(third)).result()

    assert (code, told["code"], told["limit"], told["actual"]) == (2, "E_QUOTA", 2, 2)
    assert told["retryable"] is True
    assert direct == told
    assert (same[0], same[1]["id"]) == (0, handles[0].id)
    assert {p for p in after if third["id"] in p} == set()
    assert before <= after
    assert late.state == "SUCCEEDED"


async def test_a_burst_of_direct_starts(fabric: Fabric) -> None:
    """Of twenty direct starts at once about as many run as may, and the rest are E_QUOTA."""
    bodies = [shell("sleep 60", tenant="burst") for _ in range(20)]
    for body in bodies:
        await fabric.client.start_workflow(
            names.WORKFLOW_EXPERIMENT,
            body,
            id=names.workflow_id("burst", body["id"]),
            task_queue=names.QUEUE,
        )
    handles = [fabric.get(body["id"], "burst") for body in bodies]
    async with asyncio.timeout(60):
        while "QUEUED" in (states := [(await h.status()).state for h in handles]):
            await asyncio.sleep(0.2)
    running = [h for h in handles if not (await h.status(detail=False)).final]

    await _ended(running)
    assert states.count("FAILED") + len(running) == 20
    assert 3 <= len(running) <= 6


async def test_as_fast_as_allowed(
    fabric: Fabric, environment: FabricEnvironment, tmp_path: Path
) -> None:
    """E_RATE beyond max_per_minute with the time to wait; neither repeats nor refusals count."""
    bodies = [shell("true", tenant="slow") for _ in range(3)]
    for body in bodies[:2]:
        await (await fabric.submit(body)).result()
    for _ in range(3):
        await (await fabric.submit(bodies[0])).result()

    code, told = _submit(environment, tmp_path, bodies[2])
    direct = [await _direct(fabric, bodies[2]) for _ in range(3)]

    assert (code, told["code"], told["limit"], told["actual"]) == (2, "E_RATE", 2, 2)
    assert told["retryable"] is True
    assert 0 < told["retry_after_s"] <= 60
    assert [problem["actual"] for problem in direct] == [2, 2, 2]
    assert {p for p in _kept(environment, "slow") if bodies[2]["id"] in p} == set()
    await asyncio.sleep(told["retry_after_s"])
    assert (await (await fabric.submit(bodies[2])).result()).state == "SUCCEEDED"


async def test_a_cancelled_start_of_an_unknown_tenant_keeps_nothing(
    fabric: Fabric, environment: FabricEnvironment
) -> None:
    """Cancelled before it could be refused, it leaves no record and no capsule either."""
    body = shell("true", tenant="nobody")
    environment.kill_worker()
    handle = await fabric.client.start_workflow(
        names.WORKFLOW_EXPERIMENT,
        body,
        id=names.workflow_id("nobody", body["id"]),
        task_queue=names.QUEUE,
    )
    await handle.cancel()
    environment.start_worker()

    with pytest.raises(WorkflowFailureError):
        await handle.result()

    assert _kept(environment, "nobody") == set()
