"""Certified flows on a host that falls silent, and undone: as payloads of every other kind.

One whose checkpoint is in the store moves by itself, see `test_flow_moves`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from temporal_fabric import Capsule, ExperimentCanceled, ExperimentFailed
from tests.bodies import REPORTER
from tests.flow_bodies import SMALL, endless, flow, reaches
from tests.site import Site, held, site

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from temporal_fabric.handle import ExperimentHandle
    from temporal_fabric.status import ExperimentStatus

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

_LOST = {"retry": {"lost_after": 1, "initial_interval_s": 0.1}, "limits": {"grace_s": 1}}


@dataclass
class _Story:
    """Three flows whose host fell silent, and one that failed before."""

    site: Site
    held: dict[str, ExperimentStatus]
    ends: dict[str, Any]


def _undo(found: Site, name: str) -> dict[str, Any]:
    env = {"EVIDENCE": str(found.ledger.socket)}
    return {"name": name, "command": [*REPORTER, f"undo {name}"], "env": env}


async def _end(handle: ExperimentHandle) -> Any:
    try:
        return await asyncio.wait_for(handle.result(), 90)
    except ExperimentFailed as exc:
        return exc


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def story(jax_cache: Path) -> AsyncIterator[_Story]:
    """One flow is RED; three go on when their host's cable is cut, and people answer."""
    async with site() as found:
        # With a copy of its checkpoint in the store a flow moves by itself: nobody is asked.
        jax = {"JAX_COMPILATION_CACHE_DIR": str(jax_cache), "FABRIC_FLOW_COPY_EVERY_S": "0"}
        one = await found.host("one", **jax)
        undo = [_undo(found, "first"), _undo(found, "second")]
        closed = flow(SMALL | {"certification": {"profile": "strict"}}, rollback=undo)
        red = await found.fabric.submit(closed | {"id": "red"})
        ends = {"red": await _end(red)}
        bodies = {
            "not-done": flow(endless(3_000), **_LOST),
            "abort": flow(endless(1_000_000), **_LOST, rollback=undo[:1]),
            "cancelled": flow(endless(1_000_000), **_LOST, rollback=undo[:1]),
        }
        handles = {
            name: await found.fabric.submit(body | {"id": name}) for name, body in bodies.items()
        }
        for name in ("abort", "cancelled"):
            await reaches(handles[name], 100)
        await one.cut()
        await found.host("two", **jax)
        asked = {name: await held(handle) for name, handle in handles.items()}
        for name in ("not-done", "abort"):
            await handles[name].resolve(name, by="ada")
        await handles["cancelled"].cancel()
        async with asyncio.timeout(60):
            while (await handles["cancelled"].status()).question.get("number") != 2:
                await asyncio.sleep(0.2)
        await handles["cancelled"].resolve("not-done", by="ada")
        ends |= {name: await _end(handle) for name, handle in handles.items()}
        yield _Story(found, asked, ends)


async def test_a_flow_that_failed_is_undone(story: _Story) -> None:
    """Its compensations are processes, the last one first, and tell of the certificate."""
    end = story.ends["red"]
    assert isinstance(end, ExperimentFailed)

    assert story.site.ran("red") == [("undo second", "2"), ("undo first", "3")]
    assert end.reason == "CERT_FAIL"
    assert [done["ok"] for done in end.result["compensations"]] == [True, True]
    assert Capsule.open(end.result["capsule"]).verify() == []


async def test_a_person_is_asked_about_a_flow(story: _Story) -> None:
    """HELD with the reason; that it is done cannot be said: nobody saw its certificates."""
    asked = story.held["abort"]

    assert (asked.state, asked.reason) == ("HELD", "BACKEND_DOWN")
    assert "local@one has been silent since" in asked.question["text"]
    assert [choice["answer"] for choice in asked.question["choices"]] == ["not-done", "abort"]


async def test_not_done_runs_it_elsewhere(story: _Story) -> None:
    """The next epoch begins anew on the other host and comes to its own end."""
    end = story.ends["not-done"]
    assert isinstance(end, ExperimentFailed)

    assert [(a["epoch"], a["answer"]) for a in end.result["attempts"]] == [(1, "not-done"), (2, "")]
    assert end.result["attempts"][-1]["flow"]["iteration"] == 3_000
    assert end.result["backend"] == "local@two"


async def test_abort_is_lost_and_nothing_is_undone(story: _Story) -> None:
    """Nobody knows whether it still runs, so its rollback is reported, not run."""
    end = story.ends["abort"]
    assert isinstance(end, ExperimentFailed)

    assert end.reason == "LOST"
    assert "not rolled back: first" in str(end)
    assert story.site.ran("abort") == []


async def test_cancelled_with_a_persons_word_it_is_undone(story: _Story) -> None:
    """The word takes the place of the proof; then its compensation runs, on the other host."""
    end = story.ends["cancelled"]

    assert isinstance(end, ExperimentCanceled), end
    assert [event for event, _ in story.site.ran("cancelled")] == ["undo first"]
