"""A backend that falls silent: revoked where nothing began, put to a person where it may run.

Two hosts share a pool and a store. The cable of the first one is cut, so that its worker and
its payloads go on while nobody hears of them.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from temporal_fabric import (
    Capsule,
    ExperimentCanceled,
    ExperimentFailed,
    RequestRejected,
)
from temporal_fabric.draining import DrainMark
from temporal_fabric.failpoints import FailPoint
from temporal_fabric.record import RequestRecord
from temporal_fabric.store import open_store
from tests.site import GATED, Host, Site, site, until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from temporal_fabric.handle import ExperimentHandle
    from temporal_fabric.outcomes import ExperimentResult
    from temporal_fabric.status import ExperimentStatus


@dataclass
class _Hosts:
    """Two hosts of one pool; the second one is not started yet."""

    site: Site
    one: Host
    two: Host

    def body(self, name: str, **more: Any) -> dict[str, Any]:
        return self.site.body(name, GATED, **more)

    def record(self, name: str) -> RequestRecord:
        return RequestRecord(open_store(self.site.env.settings.store), "default", name)


@asynccontextmanager
async def _hosts() -> AsyncGenerator[_Hosts]:
    async with site() as found:
        yield _Hosts(found, await found.host("one"), await found.prepare("two"))


async def _held(handle: ExperimentHandle) -> ExperimentStatus:
    return await until(handle, lambda status: status.state == "HELD")


def _offered(status: ExperimentStatus) -> list[str]:
    return [choice["answer"] for choice in status.question["choices"]]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_what_never_began_is_placed_elsewhere() -> None:
    """Revoked by a worker that dies of it, it waits for a drained host and runs there, once."""
    async with _hosts() as hosts:
        hosts.one.points.arm(FailPoint.ATTEMPT_TAKEN)
        handle = await hosts.site.fabric.submit(hosts.body("never-began"))
        await hosts.one.points.reached(FailPoint.ATTEMPT_TAKEN)
        await hosts.one.cut()
        DrainMark(hosts.two.env.home, "local@two").put(drained=True, reason="cleaning")
        hosts.two.points.arm(FailPoint.SETTLE_REVOKED)
        await hosts.two.start()
        await hosts.two.points.reached(FailPoint.SETTLE_REVOKED)
        await asyncio.to_thread(hosts.two.env.kill_worker)
        await hosts.two.start()

        waiting = await until(handle, lambda status: status.reason == "DRAINED")
        await hosts.site.fabric.undrain("local@two")
        await until(handle, lambda status: status.state == "RUNNING")
        hosts.one.points.let_go(FailPoint.ATTEMPT_TAKEN)
        await hosts.one.mend()
        await asyncio.sleep(3)  # the first host has the chance to do what it must not
        hosts.site.open_gate(handle.id, 2)
        result = await asyncio.wait_for(handle.result(), 60)

        assert waiting.state == "QUEUED"
        assert hosts.site.ran(handle.id) == [("start", "2"), ("end", "2")]
        assert (result.state, result.epoch, result.backend) == ("SUCCEEDED", 2, "local@two")
        assert [attempt.epoch for attempt in result.attempts] == [2]
        assert await hosts.record(handle.id).end(1) == "revoked"


_NAMES = ("not-done", "abort", "done", "outputs", "cancelled", "terminated", "raced")


@dataclass
class _Story:
    """What became of experiments that ran on a host when it fell silent."""

    hosts: _Hosts
    held: dict[str, ExperimentStatus]
    said: dict[str, str]
    ends: dict[str, ExperimentResult | ExperimentFailed]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def story() -> AsyncIterator[_Story]:
    """Seven experiments run, their host falls silent, people answer, and the host is back."""
    async with _hosts() as hosts:
        bodies = {name: hosts.body(name) for name in _NAMES}
        bodies["outputs"]["payload"]["process"]["outputs"] = [{"source_path": "out.txt"}]
        handles = {name: await hosts.site.fabric.submit(body) for name, body in bodies.items()}
        for handle in handles.values():
            await until(handle, lambda status: status.state == "RUNNING")
        await hosts.one.cut()
        await hosts.two.start()
        held = {name: await _held(handle) for name, handle in handles.items()}
        told = _Story(hosts, held, {}, {})
        await asyncio.gather(*(_answer(told, name, handles[name]) for name in _NAMES))
        early = (name for name in _NAMES if name != "outputs")
        await asyncio.gather(*(_end(told, name, handles[name]) for name in early))
        await hosts.one.mend()
        await _end(told, "outputs", handles["outputs"])
        yield told


async def _answer(told: _Story, name: str, handle: ExperimentHandle) -> None:
    """Do to a held experiment what it is about."""
    said, hosts = told.said, told.hosts
    if name in {"not-done", "abort", "done"}:
        answer = ("--as", name, "--by", "ada", "--note", "I looked")
        said[name] = await asyncio.to_thread(hosts.site.cli, "resolve", name, *answer)
        hosts.site.open_gate(name, 2)
    elif name == "outputs":
        with pytest.raises(RequestRejected) as caught:
            await handle.resolve("done", by="ada")
        said[name] = str(caught.value)
        said["pause"] = (await handle.pause()).state
    elif name == "cancelled":
        await handle.cancel()
        again = await until(handle, lambda status: status.question.get("number") == 2)
        said[name] = " ".join(_offered(again))
        await handle.resolve("not-done", by="ada")
    elif name == "terminated":
        await handle.workflow.terminate()
        await handle.retry()
        await _held(handle)
        await handle.resolve("not-done", by="ada")
        hosts.site.open_gate(name, 2)
    else:
        answers = ("not-done", "abort", "not-done", "abort")
        both = (handle.resolve(answer, by=answer, question=1) for answer in answers)
        found = await asyncio.gather(*both, return_exceptions=True)
        said[name] = " ".join(sorted(type(each).__name__ for each in found))
        hosts.site.open_gate(name, 2)


async def _end(told: _Story, name: str, handle: ExperimentHandle) -> None:
    if name == "outputs":
        await until(handle, lambda status: status.state == "PAUSED")
        told.hosts.site.open_gate(name, 1)
        await handle.resume()
    try:
        told.ends[name] = await asyncio.wait_for(handle.result(), 60)
    except ExperimentFailed as exc:
        told.ends[name] = exc


@pytest.mark.asyncio(loop_scope="module")
async def test_a_question_is_put_and_shown(story: _Story) -> None:
    """HELD with the reason, the question and what follows from each answer."""
    held = story.held["not-done"]

    assert (held.state, held.reason) == ("HELD", "BACKEND_DOWN")
    assert "local@one has been silent since" in held.question["text"]
    assert _offered(held) == ["done", "not-done", "abort"]
    assert (held.question["epoch"], held.question["backend"]) == (1, "local@one")


@pytest.mark.asyncio(loop_scope="module")
async def test_not_done_is_tried_again_elsewhere(story: _Story) -> None:
    """The next epoch runs on the other host; who said what stands in result and capsule."""
    end = story.ends["not-done"]
    assert not isinstance(end, ExperimentFailed)
    sealed = Capsule.open(end.capsule)

    assert story.hosts.site.ran("not-done") == [("start", "1"), ("start", "2"), ("end", "2")]
    assert (end.state, end.epoch, end.backend) == ("SUCCEEDED", 2, "local@two")
    assert [(a.reason, a.answer) for a in end.attempts] == [("LOST", "not-done"), ("", "")]
    (word,) = end.resolutions
    assert (word.answer, word.by, word.note, word.epoch) == ("not-done", "ada", "I looked", 1)
    assert "ada says: not-done (I looked)" in sealed.read("events.jsonl").decode()
    assert sealed.verify() == []
    assert "RETRYING" in story.said["not-done"]


@pytest.mark.asyncio(loop_scope="module")
async def test_abort_fails_as_lost(story: _Story) -> None:
    """Nobody knows, so it is LOST and not run again; the silent host is not waited for."""
    end = story.ends["abort"]
    assert isinstance(end, ExperimentFailed)

    assert (end.reason, end.result["resolutions"][0]["by"]) == ("LOST", "ada")
    assert "ada says: abort" in str(end)
    assert story.hosts.site.ran("abort") == [("start", "1")]


@pytest.mark.asyncio(loop_scope="module")
async def test_done_is_a_success_that_says_on_whose_word(story: _Story) -> None:
    """Without outputs that could be checked a person's word counts, and is named."""
    end = story.ends["done"]
    assert not isinstance(end, ExperimentFailed)

    assert (end.state, end.attempts[0].answer) == ("SUCCEEDED", "done")
    assert "ada says: done" in end.message


@pytest.mark.asyncio(loop_scope="module")
async def test_outputs_cannot_be_answered_for(story: _Story) -> None:
    """`done` is refused where outputs are declared; paused meanwhile, it is adopted paused."""
    end = story.ends["outputs"]
    assert not isinstance(end, ExperimentFailed)

    assert "it takes not-done, abort" in story.said["outputs"]
    assert story.said["pause"] == "HELD"
    assert (end.state, end.epoch, end.resolutions) == ("SUCCEEDED", 1, [])
    assert story.hosts.site.ran("outputs") == [("start", "1"), ("end", "1")]


@pytest.mark.asyncio(loop_scope="module")
async def test_cancelled_while_held_needs_a_word_for_the_proof(story: _Story) -> None:
    """CANCELED promises that nothing runs: the question changes, and a person's word is it."""
    assert story.said["cancelled"] == "not-done abort"
    assert isinstance(story.ends["cancelled"], ExperimentCanceled)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_run_after_a_terminated_one_asks_for_its_epoch(story: _Story) -> None:
    """What a terminated run left on a silent host is asked about before anything runs."""
    end = story.ends["terminated"]
    assert not isinstance(end, ExperimentFailed)

    assert [word.epoch for word in end.resolutions] == [1]
    assert story.hosts.site.ran("terminated") == [("start", "1"), ("start", "2"), ("end", "2")]


@pytest.mark.asyncio(loop_scope="module")
async def test_of_several_answers_one_counts(story: _Story) -> None:
    """The first counts, the same one again hears the same, any other is refused."""
    end = story.ends["raced"]
    ran = [epoch for event, epoch in story.hosts.site.ran("raced") if event == "start"]

    refused = "RequestRejected RequestRejected"
    assert story.said["raced"] == f"ExperimentStatus ExperimentStatus {refused}"
    assert ran == (["1"] if isinstance(end, ExperimentFailed) else ["1", "2"])


@pytest.mark.asyncio(loop_scope="module")
async def test_nothing_is_left_on_the_host_that_is_back(story: _Story) -> None:
    """Whatever was settled without it is ended there, and its folders go."""
    given_up = [name for name in _NAMES if name != "outputs"]
    pids = [row["pid"] for row in story.hosts.site.ledger.lines(epoch="1") if row["id"] in given_up]
    runs = story.hosts.one.env.settings.runs / "default"
    async with asyncio.timeout(40):
        while any(map(_alive, pids)) or (runs / "abort").exists():
            await asyncio.sleep(0.2)

    assert len(pids) == len(given_up)


async def test_what_was_claimed_is_held_and_adopted_when_its_host_is_back() -> None:
    """The claim wins, so nothing is revoked: it is HELD, then goes on where it was, once."""
    async with _hosts() as hosts:
        hosts.one.points.arm(FailPoint.ATTEMPT_CLAIMED)
        handle = await hosts.site.fabric.submit(hosts.body("claimed"))
        await hosts.one.points.reached(FailPoint.ATTEMPT_CLAIMED)
        await hosts.one.cut()
        await hosts.two.start()

        held = await _held(handle)
        hosts.site.open_gate(handle.id, 1)
        hosts.one.points.let_go(FailPoint.ATTEMPT_CLAIMED)
        await hosts.one.mend()
        result = await asyncio.wait_for(handle.result(), 60)

        assert held.reason == "BACKEND_DOWN"
        assert "local@one has been silent since" in held.question["text"]
        assert hosts.site.ran(handle.id) == [("start", "1"), ("end", "1")]
        assert (result.state, result.epoch, result.resolutions) == ("SUCCEEDED", 1, [])
        states = [moment.state for moment in result.timeline]
        assert states[:3] == ["QUEUED", "PREPARING", "HELD"]
        assert states[-1] == "SUCCEEDED"
