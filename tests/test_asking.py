"""An attempt that asks a person: HELD, shown wherever one looks, and told of the answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
import pytest_asyncio

from temporal_fabric import Capsule, ExperimentCanceled, ExperimentFailed, Fabric, names
from temporal_fabric.connection import connect
from temporal_fabric.testing.asking import QUESTION
from temporal_fabric.testing.environment import FabricEnvironment
from tests.bodies import shell
from tests.browser import frames, opened_page

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from temporal_fabric.handle import ExperimentHandle

pytestmark = pytest.mark.asyncio(loop_scope="module")
_SCRIPT = '[ -n "$ANSWERS" ] || exit 75; echo "$ANSWERS" > $FABRIC_OUTPUT_DIR/answers'


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def env() -> AsyncIterator[FabricEnvironment]:
    """A server, and a worker whose backend asks."""
    async with FabricEnvironment.fresh(worker=False) as found:
        found.start_worker("temporal_fabric.testing.asking")
        yield found


async def _held(env: FabricEnvironment) -> ExperimentHandle:
    fabric = Fabric(await connect(env.settings, address=env.address), env.settings)
    handle = await fabric.submit(shell(_SCRIPT, retry={"initial_interval_s": 0.1}))
    async with asyncio.timeout(30):
        while (await handle.status()).state != "HELD":
            await asyncio.sleep(0.1)
    return handle


@pytest.mark.parametrize("answer", ["done", "not-done"])
async def test_the_next_attempt_is_told(env: FabricEnvironment, answer: str) -> None:
    """Under a new epoch, which does not count as a retry, the backend knows the answer."""
    handle = await _held(env)
    status = await handle.resolve(answer, by="ada")
    result = await asyncio.wait_for(handle.result(), 30)

    assert status.resolutions[0]["answer"] == answer
    assert (result.state, result.epoch, len(result.attempts)) == ("SUCCEEDED", 2, 2)
    assert result.attempts[0].answer == answer
    assert Capsule.open(result.capsule).output("answers").read_text() == f"{answer}\n"


async def test_an_abort_ends_with_what_is_known(env: FabricEnvironment) -> None:
    """The attempt's own reason stands, and the message says who gave it up."""
    handle = await _held(env)
    await handle.resolve("abort", by="ada", note="power cut")
    with pytest.raises(ExperimentFailed) as caught:
        await asyncio.wait_for(handle.result(), 30)

    assert caught.value.reason == "LOST"
    assert "step 3 is unknown; ada says: abort (power cut)" in str(caught.value)


async def test_cancelled_instead(env: FabricEnvironment) -> None:
    """Nothing runs while such a question is open, so a cancellation needs no answer."""
    handle = await _held(env)
    await handle.cancel()

    with pytest.raises(ExperimentCanceled):
        await asyncio.wait_for(handle.result(), 30)


async def test_the_command_line(env: FabricEnvironment) -> None:
    """`status`, `explain` and `list` show the question; `resolve` refuses what is no answer."""
    handle = await _held(env)
    at = ("--address", env.address)
    shown, why, listed, wrong, done, late = [
        await asyncio.to_thread(env.cli, *args, *at)
        for args in (
            ("status", handle.id),
            ("explain", handle.id),
            ("list", "--state", "HELD"),
            ("resolve", handle.id, "--as", "maybe"),
            ("resolve", handle.id, "--as", "abort", "--by", "ada"),
            ("resolve", handle.id, "--as", "done", "--by", "bob"),
        )
    ]

    assert QUESTION in shown.stdout
    assert "--as not-done" in shown.stdout
    assert f"resolve {handle.id} --as done|not-done|abort" in why.stdout
    assert handle.id in listed.stdout
    assert (wrong.returncode, done.returncode, late.returncode) == (2, 0, 2)
    assert "answered" in late.stderr or "ended" in late.stderr


async def test_the_web_ui_tells_it(env: FabricEnvironment) -> None:
    """The list finds what is HELD; its page has the state, the question and the commands."""
    handle = await _held(env)
    listed, told = await asyncio.to_thread(_pages, env, handle)
    await handle.cancel()

    assert handle.workflow_id in listed
    assert "Running" in listed
    assert all(word in told for word in ("HELD", "LOST", QUESTION))
    assert f"temporal-fabric resolve {handle.id} --as not-done" in told


def _pages(env: FabricEnvironment, handle: ExperimentHandle) -> tuple[str, str]:
    """Return what a person reads in the list of what is HELD, and on the experiment's page."""
    assert env.server is not None
    base = f"{env.server.info.ui_url}/namespaces/default/workflows"
    with opened_page() as page:
        query = f'{names.SA_STATE}="HELD"'
        page.goto(f"{base}?query={quote(query)}")
        row = page.get_by_role("row").filter(has_text=handle.workflow_id)
        row.wait_for()
        listed = row.inner_text()
        page.goto(f"{base}/{quote(handle.workflow_id, safe='')}")
        page.get_by_text("User Metadata").click()
        return (listed, frames(page, "resolve"))
