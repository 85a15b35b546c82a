"""One pool, and hosts that have different backends: each experiment finds the one that can."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from temporal_fabric import ExecutionRequest, ExperimentFailed, RequestRejected
from tests.bodies import shell
from tests.site import Host, Site, site, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.asyncio(loop_scope="module")

_SPECIAL = '[backends.{name}]\nkind = "local"\nslots = {slots}\n'


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def unlike() -> AsyncIterator[Site]:
    """Two hosts of one pool; only the second one has the backend ``press``."""
    async with site() as found:
        for name, backend, slots in (("plain", "local", 16), ("special", "press", 1)):
            host = await found.prepare(name)
            (host.env.home / "fabric.toml").write_text(_SPECIAL.format(name=backend, slots=slots))
            await host.start()
        yield found


def _pressed(**more: Any) -> dict[str, Any]:
    return shell("true", backends=["press"], **more)


def _special(unlike: Site) -> Host:
    return unlike.hosts["special"]


async def test_each_finds_the_host_that_has_its_backend(unlike: Site) -> None:
    """Whichever worker takes the question: twelve run where they can, and none is refused."""
    bodies = [_pressed() if number % 2 else shell("true") for number in range(12)]
    handles = [await unlike.fabric.submit(body) for body in bodies]
    results = [await asyncio.wait_for(handle.result(), 120) for handle in handles]

    ran_on = [result.attempts[-1].backend for result in results]
    assert ran_on[1::2] == ["press@special"] * 6
    assert set(ran_on[::2]) <= {"local@plain", "press@special"}


async def test_all_hosts_are_told_of(unlike: Site) -> None:
    """`backends` lists both; a plan names the one that can; a refusal has the verdicts of both."""
    listed = [told.name for told in await unlike.fabric.backends()]
    wanted = ExecutionRequest.from_mapping(_pressed())
    plans = [await unlike.fabric.plan(wanted) for _ in range(4)]
    with pytest.raises(RequestRejected) as refused:
        await unlike.fabric.submit(shell("true", backends=["oven"]))

    assert listed == ["local@plain", "press@special"]
    assert [plan and plan.backend for plan in plans] == ["press@special"] * 4
    (problem,) = refused.value.problems
    assert problem.code == "E_NO_BACKEND"
    assert "local@plain: is not among" in problem.message
    assert "press@special: is not among" in problem.message


async def test_without_a_check_it_is_refused_by_all(unlike: Site) -> None:
    """What nobody can run fails with the verdicts of both hosts, whoever takes the question."""
    handle = await unlike.fabric.submit(shell("true", backends=["oven"]), check=False)
    with pytest.raises(RequestRejected) as refused:
        await asyncio.wait_for(handle.result(), 60)

    assert "local@plain: is not among" in str(refused.value)
    assert "press@special: is not among" in str(refused.value)


async def test_what_was_accepted_waits_for_its_host(unlike: Site) -> None:
    """It waits in line at its host, which dies: no other one refuses it, and it runs at the end."""
    first = await unlike.fabric.submit(shell("sleep 600", backends=["press"]))
    await until(first, lambda status: status.state == "RUNNING")
    waits = await unlike.fabric.submit(_pressed())
    late = await unlike.fabric.submit(_pressed(queue_timeout="20s"))
    await until(waits, lambda status: status.live.get("backend") == "press@special")
    await _special(unlike).die()
    with pytest.raises(ExperimentFailed) as failed:
        await asyncio.wait_for(late.result(), 150)
    stands = await until(waits, lambda status: status.reason == "BACKEND_DOWN")
    await _special(unlike).start()
    result = await asyncio.wait_for(waits.result(), 150)
    await first.cancel()

    assert failed.value.reason == "NO_BACKEND"
    assert "within the queue_timeout" in str(failed.value)
    assert (stands.state, stands.reason) == ("QUEUED", "BACKEND_DOWN")
    assert stands.message == "waits for a host that can run it: none is there now"
    assert result.attempts[-1].backend == "press@special"
