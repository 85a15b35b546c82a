"""A host that is gone between the payload's end and the seal: waited for, asked about, fenced.

Each experiment runs on a host of its own, which is killed or stopped at a named point of the
seal. Another host of the same store is there from then on.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from temporal_fabric import Capsule, CapsuleError, ExperimentFailed
from temporal_fabric.capsule.finding import find_capsules
from temporal_fabric.failpoints import FailPoint
from tests.bodies import REPORTER
from tests.site import REPORT, Site, held, site, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from temporal_fabric.handle import ExperimentHandle
    from temporal_fabric.outcomes import ExperimentResult
    from temporal_fabric.status import ExperimentStatus

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

_OUTPUT = f"""
{REPORT.replace("sys.argv[1]", "'start'")}
open(os.environ['FABRIC_OUTPUT_DIR'] + '/out.txt', 'w').write('kept')
"""
_OUTPUTS = f"""
{_OUTPUT}
open(os.environ['FABRIC_OUTPUT_DIR'] + '/more.txt', 'w').write('kept too')
"""
_UNDO = {"name": "undo", "command": [*REPORTER, "undone"]}
_CASES: dict[str, tuple[FailPoint, str, dict[str, Any]]] = {
    "given-up": (FailPoint.SEAL_TAKEN, _OUTPUT, {"rollback": [_UNDO]}),
    "late": (FailPoint.CAPSULE_WRITTEN, _OUTPUT, {}),
    "committed": (FailPoint.CAPSULE_SEALED, _OUTPUT, {}),
    "failing": (FailPoint.SEAL_TAKEN, "import sys; sys.exit(3)", {}),
    "bare": (FailPoint.SEAL_TAKEN, "print('done')", {}),
    "stopped": (FailPoint.CAPSULE_WRITTEN, _OUTPUT, {}),
    "half-named": (FailPoint.DELIVERY_NAMED, _OUTPUTS, {}),
    "unseen": (FailPoint.CAPSULE_SEALED, _OUTPUTS, {}),
    "awaited": (FailPoint.CAPSULE_SEALED, _OUTPUTS, {}),
}
"""Where the host of each experiment is when it goes, and what the experiment is."""

_FINISHED = ("committed", "half-named")
_ELSEWHERE = ("unseen", "awaited")
"""Those whose targets are a disk of the host, and go with it."""


@dataclass
class _Story:
    """What became of each experiment."""

    site: Site
    handles: dict[str, ExperimentHandle] = field(default_factory=dict[str, "ExperimentHandle"])
    held: dict[str, ExperimentStatus] = field(default_factory=dict[str, "ExperimentStatus"])
    said: dict[str, str] = field(default_factory=dict[str, str])
    ends: dict[str, ExperimentResult | ExperimentFailed] = field(
        default_factory=dict[str, "ExperimentResult | ExperimentFailed"]
    )

    def succeeded(self, name: str) -> ExperimentResult:
        end = self.ends[name]
        assert not isinstance(end, ExperimentFailed), end
        return end

    def failed(self, name: str) -> ExperimentFailed:
        end = self.ends[name]
        assert isinstance(end, ExperimentFailed), end
        return end

    def target(self, name: str) -> Path:
        """The folder under which the outputs of an experiment are to be stored."""
        return self.site.env.home / "targets" / name

    def away(self, name: str) -> Path:
        """Where that folder is while nobody can see it."""
        return self.target(name).with_suffix(".away")

    def stored(self, name: str) -> dict[str, str]:
        """What lies there, by name."""
        return {path.name: path.read_text() for path in self.target(name).iterdir()}

    def _body(self, name: str) -> dict[str, Any]:
        _, code, more = _CASES[name]
        if code is _OUTPUTS:
            uri = self.target(name).as_uri()
            names = ("more.txt", "out.txt")
            outputs = [{"source_path": each, "target_uri": f"{uri}/{each}"} for each in names]
            more = more | {"outputs": outputs}
        return self.site.body(name, code, **more)

    async def gone(self, name: str) -> None:
        """Start an experiment on a host of its own, and let the host go in its seal."""
        point = _CASES[name][0]
        host = await self.site.host(name)
        host.points.arm(point)
        self.handles[name] = await self.site.fabric.submit(self._body(name))
        await host.points.reached(point)
        if name == "stopped":
            await host.stop()
        else:
            await host.die()

    async def ended(self, name: str) -> None:
        try:
            self.ends[name] = await asyncio.wait_for(self.handles[name].result(), 60)
        except ExperimentFailed as exc:
            self.ends[name] = exc


def _asks_about_targets(status: ExperimentStatus) -> bool:
    return "these are stored" in str(status.question.get("text"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def story() -> AsyncIterator[_Story]:
    """The hosts go one by one, people are asked and answer, and the hosts are back."""
    async with site() as found:
        told = _Story(found)
        for name in _CASES:
            await told.gone(name)
        for name in _ELSEWHERE:
            told.target(name).rename(told.away(name))
        await found.host("other")
        for name in _FINISHED:
            await told.ended(name)
        asked = [name for name in _CASES if name not in _FINISHED]
        told.held = {name: await held(told.handles[name]) for name in asked}
        for name in _ELSEWHERE:
            told.held[name] = await until(told.handles[name], _asks_about_targets)
        for verb in ("status", "explain"):
            told.said[verb] = await asyncio.to_thread(found.cli, verb, "given-up")
        await found.hosts["late"].start()
        for name in ("given-up", "stopped", "failing"):
            await told.handles[name].resolve("abort", by="ada", note="the disk is gone")
        for name in ("bare", "unseen"):
            await told.handles[name].resolve("done", by="ada")
        told.away("awaited").rename(told.target("awaited"))
        await found.hosts["awaited"].start()
        for name in asked:
            await told.ended(name)
        found.hosts["stopped"].points.let_go(FailPoint.CAPSULE_WRITTEN)
        await found.hosts["stopped"].go_on()
        await found.hosts["given-up"].start()
        yield told


async def test_a_person_is_told_what_lies_where(story: _Story) -> None:
    """HELD, with what is known of the payload, what lies on the host, and what may be said."""
    shown = story.held["given-up"]

    assert (shown.state, shown.reason) == ("HELD", "BACKEND_DOWN")
    assert "local@given-up has been silent since" in shown.question["text"]
    assert "Its payload succeeded, and the outputs and logs of epoch 1" in shown.question["text"]
    assert [choice["answer"] for choice in shown.question["choices"]] == ["abort"]
    assert "its outputs are given up: it ends as LOST" in story.said["status"]
    assert "resolve given-up --as abort" in story.said["explain"]


async def test_a_success_without_its_outputs_is_lost(story: _Story) -> None:
    """It is not called success, what it did is undone, and its own capsule tells of all."""
    end = story.failed("given-up")
    sealed = Capsule.open(end.result["capsule"])

    assert end.reason == "LOST"
    assert "sealed without the files on local@given-up; ada says: abort" in str(end)
    assert story.site.ran("given-up") == [("start", "1"), ("undone", "2")]
    assert (sealed.result["state"], sealed.result["outputs"]) == ("FAILED", [])
    assert sealed.result["resolutions"][0]["by"] == "ada"
    assert sealed.verify() == []
    assert "the disk is gone" in sealed.read("events.jsonl").decode()


async def test_a_host_that_is_back_in_time_seals(story: _Story) -> None:
    """Killed with its launcher in the middle of the seal, it comes back before any answer."""
    end = story.succeeded("late")
    sealed = Capsule.open(end.capsule)

    assert "late" in story.held
    assert (end.state, end.epoch, end.resolutions) == ("SUCCEEDED", 1, [])
    assert end.timeline[-1].state == "SUCCEEDED"
    assert sealed.output("out.txt").read_text() == "kept"
    assert sealed.verify() == []
    assert story.site.ran("late") == [("start", "1")]


async def test_what_a_host_has_committed_another_finishes(story: _Story) -> None:
    """Sealed, and dead before it could say so: it is a success, and nobody is asked."""
    end = story.succeeded("committed")

    assert "HELD" not in [moment.state for moment in end.timeline]
    assert Capsule.open(end.capsule).output("out.txt").read_text() == "kept"


async def test_what_a_host_has_not_named_another_names(story: _Story) -> None:
    """One of two outputs bore its name: the other gets it too, and nobody is asked."""
    end = story.succeeded("half-named")

    assert "HELD" not in [moment.state for moment in end.timeline]
    assert story.stored("half-named") == {"out.txt": "kept", "more.txt": "kept too"}
    assert Capsule.open(end.capsule).output("more.txt").read_text() == "kept too"


async def test_targets_that_nobody_sees_are_asked_about(story: _Story) -> None:
    """Told which they are, a person may let the capsule count: there is no second one."""
    question = story.held["unseen"].question
    end = story.succeeded("unseen")
    (found,) = find_capsules(story.site.env.settings.store, "unseen")

    assert "its capsule is sealed with every output" in question["text"]
    assert f"{story.target('unseen').as_uri()}/out.txt" in question["text"]
    assert [choice["answer"] for choice in question["choices"]] == ["done"]
    assert "nobody has seen whether these are stored: file://" in end.message
    assert "ada says: done" in end.message
    assert found.uri == end.capsule
    assert found.output("out.txt").read_text() == "kept"
    assert not story.target("unseen").exists()


async def test_a_host_that_is_back_names_its_outputs(story: _Story) -> None:
    """Its disk is back with it, before anybody has answered."""
    end = story.succeeded("awaited")

    assert (end.state, end.resolutions) == ("SUCCEEDED", [])
    assert story.stored("awaited") == {"out.txt": "kept", "more.txt": "kept too"}
    assert story.site.ran("awaited") == [("start", "1")]


async def test_a_stopped_host_commits_nothing_afterwards(story: _Story) -> None:
    """It wakes up with its capsule written but for the manifest: one result, one capsule."""
    end = story.failed("stopped")
    first = end.result["capsule"].removesuffix("-elsewhere")
    host, store = story.site.hosts["stopped"], story.site.env.settings.store
    async with asyncio.timeout(60):
        while host.keeps("stopped"):
            await asyncio.sleep(0.1)

    assert (end.reason, first) != ("LOST", end.result["capsule"])
    with pytest.raises(CapsuleError, match="sealed without the host"):
        Capsule.open(first)
    (found,) = find_capsules(store, "stopped")
    assert (found.uri, found.result["state"]) == (end.result["capsule"], "FAILED")
    assert found.verify() == []
    outcomes = story.site.env.home / "requests" / "default" / "stopped" / "outcomes"
    (outcome,) = [json.loads(path.read_text()) for path in outcomes.iterdir()]
    assert (outcome["state"], outcome["capsule"]) == ("FAILED", found.uri)


async def test_another_end_stays_what_it_is(story: _Story) -> None:
    """Of a payload that failed only logs are missing: the reason is known, and is kept."""
    end = story.failed("failing")
    text = story.held["failing"].question["text"]

    assert "Its payload ended (EXIT_CODE)" in text
    assert (end.reason, end.exit_code) == ("EXIT_CODE", 3)
    assert "sealed without the files on local@failing" in str(end)
    assert Capsule.open(end.result["capsule"]).verify() == []


async def test_a_success_without_outputs_may_count(story: _Story) -> None:
    """Nothing but logs is missing, its end is known, and a person says that it counts."""
    end = story.succeeded("bare")
    sealed = Capsule.open(end.capsule)

    assert [c["answer"] for c in story.held["bare"].question["choices"]] == ["done", "abort"]
    assert (end.state, end.resolutions[0].answer) == ("SUCCEEDED", "done")
    assert not any(entry.path.startswith("logs/") for entry in sealed.manifest.files)


async def test_nothing_is_left_on_a_host_that_comes_too_late(story: _Story) -> None:
    """Its worker finds that the run has ended, and drops what it kept."""
    host = story.site.hosts["given-up"]
    async with asyncio.timeout(60):
        while host.keeps("given-up"):
            await asyncio.sleep(0.1)

    assert story.site.ran("given-up") == [("start", "1"), ("undone", "2")]
