"""The example of an adapter in less than a hundred lines keeps the contract, and is found."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from examples.adapter.processes import Processes
from temporal_fabric import Capsule
from temporal_fabric.adapters.conformance_report import (
    NOT_APPLICABLE,
    NOT_SHOWN,
    PASSED,
    Outcome,
    Report,
)
from temporal_fabric.adapters.contract import JobHandle, Phase
from temporal_fabric.adapters.experimental import experimental
from temporal_fabric.adapters.six_methods import JobStatus, SixMethods
from temporal_fabric.config import BackendConfig, Settings
from temporal_fabric.errors import BackendUnknown
from temporal_fabric.testing.bench import Bench
from temporal_fabric.testing.conformance import CASES, Case
from temporal_fabric.testing.environment import FabricEnvironment
from tests.bodies import shell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from temporal_fabric import Fabric
    from temporal_fabric.adapters.contract import Adapter
    from temporal_fabric.requests.models import ExecutionRequest

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXAMPLE = Path(__file__).parents[2] / "examples" / "adapter" / "processes.py"


class SixBench(Bench):
    """Makes the example's adapter."""

    inner: Any = None

    def make(self) -> Adapter:
        """Return a new adapter with the same records and the same jobs."""
        inner = self.inner or Processes(str(self.folder / "jobs"))
        settings = Settings(home=self.folder, store=self.folder.as_uri())
        return SixMethods(inner, BackendConfig("six", kind="processes"), settings, "conformance")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench() -> AsyncIterator[SixBench]:
    """A bench of the example."""
    folder = Path(tempfile.mkdtemp(prefix="fab"))
    found = SixBench(folder)
    yield found
    await found.settle()
    await found.aclose()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_conforms(case: Case, bench: SixBench) -> None:
    """Every case of the suite passes, or says what an adapter of six methods cannot show."""
    outcome = await case.judge(bench)
    if outcome.verdict in {NOT_SHOWN, NOT_APPLICABLE}:
        pytest.skip(outcome.why)
    assert outcome.verdict == PASSED, outcome.why


class Vanishing(Processes):
    """Starts the job and loses its id, or answers nonsense."""

    def submit(self, req: ExecutionRequest) -> JobStatus:
        """Start it, and fail."""
        super().submit(req)
        raise ConnectionResetError("the line broke")


class Mad(Processes):
    """Answers nonsense."""

    def get_status(self, job_id: str) -> Any:
        """Return what means nothing."""
        return {"job_id": job_id, "state": "perhaps"}


async def test_a_submission_that_was_cut_short_is_lost(bench: SixBench) -> None:
    """The job may run: it is neither absent nor started a second time."""
    bench.inner = Vanishing(str(bench.folder / "jobs"))
    key = bench.key()
    attempt = bench.attempt(key, "report('start')")
    try:
        with pytest.raises(BackendUnknown, match="the line broke"):
            await bench.adapter().submit(attempt)
        status = await bench.adapter().find(key)
        again = await bench.adapter().submit(attempt)
        while not bench.effects(key, "start"):
            await asyncio.sleep(0.05)
    finally:
        bench.inner = None

    assert (status.phase, again.native_id) == (Phase.LOST, "")
    assert "nobody knows whether the job exists" in status.message
    assert bench.effects(key, "start") == 1


async def test_an_answer_without_a_meaning_is_unknown(bench: SixBench) -> None:
    """Nothing is concluded from it; the job goes on, and its end is told once it can be."""
    key = bench.key()
    await bench.adapter().submit(bench.attempt(key, "time.sleep(0.5)"))
    bench.inner = Mad(str(bench.folder / "jobs"))
    try:
        with pytest.raises(BackendUnknown, match="no status of a job"):
            await bench.adapter().find(key)
    finally:
        bench.inner = None

    assert (await bench.adapter().wait(JobHandle(key, ""), 30)).exit_code == 0


async def test_what_six_methods_have_no_words_for_is_refused(bench: SixBench) -> None:
    """Limits and secrets would be dropped in silence: the verdict names each of them."""
    limits = {"cpus": 1, "log_bytes": 2**20}
    verdict = await bench.adapter().can_fulfill(bench.request("pass", limits=limits))

    assert [shortfall.change for shortfall in verdict.shortfalls] == [
        "drop /limits/cpus",
        "drop /limits/log_bytes",
    ]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def environment() -> AsyncIterator[FabricEnvironment]:
    """A worker that finds the example as an installed distribution without a report."""
    with tempfile.TemporaryDirectory() as name:
        site = Path(name)
        shutil.copy(EXAMPLE, site / "processes.py")
        about = site / "processes_adapter-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: processes-adapter\nVersion: 1.0\n"
        )
        group = "[temporal_fabric.adapters]\nprocesses = processes:Processes\n"
        (about / "entry_points.txt").write_text(group)
        config = f"[backends.six]\nkind = 'processes'\noptions = {{folder = '{site}'}}\n"
        path = os.pathsep.join(filter(None, (name, os.environ.get("PYTHONPATH"))))
        async with FabricEnvironment.fresh({"PYTHONPATH": path}, config=config) as found:
            yield found


async def test_an_experiment_on_it_outlives_its_worker(
    environment: FabricEnvironment, fabric: Fabric
) -> None:
    """Found by its entry point; a killed worker's job is adopted, its log and output collected."""
    script = "echo began; sleep 4; echo kept > $FABRIC_OUTPUT_DIR/x; echo ended"
    handle = await fabric.submit(shell(script))
    async with asyncio.timeout(60):
        while (await handle.status()).state != "RUNNING":
            await asyncio.sleep(0.1)

    environment.kill_worker()
    environment.start_worker()
    result = await asyncio.wait_for(handle.result(), 90)

    capsule = Capsule.open(result.capsule)
    assert (result.state, result.epoch, [o.path for o in result.outputs]) == ("SUCCEEDED", 1, ["x"])
    assert b"".join(capsule.objects.chunks("logs/1/stdout.log")) == b"began\nended\n"


async def test_without_a_report_it_is_experimental(environment: FabricEnvironment) -> None:
    """`backends` and `doctor` say so; with a report that fails they name the cases."""
    said = environment.cli("backends")
    checks = json.loads(environment.cli("doctor", "-o", "json").stdout)
    site = Path(environment.env["PYTHONPATH"].split(os.pathsep)[0])
    report = Report("processes", "1.0", "0", "now", outcomes=[Outcome("a_case", "failed")])
    report.write(site / "conformance")
    failing = environment.cli("backends")
    report.outcomes = [Outcome("a_case", "passed")]
    report.write(site / "conformance")
    passing = json.loads(environment.cli("backends", "-o", "json").stdout)

    assert "is experimental: no conformance report ships with its adapter" in said.stdout
    (check,) = [check for check in checks if check["name"] == "adapter processes"]
    assert (check["verdict"], "experimental" in check["detail"]) == ("warn", True)
    assert "does not pass the conformance suite: a_case" in failing.stdout
    assert passing[0]["experimental"] == ""


@pytest.mark.parametrize("kind", ["docker", "kubernetes", "local", "sila", "slurm"])
async def test_our_own_reports_are_fresh(kind: str) -> None:
    """Our reports pass, are of this version, and have every case (tools/make_conformance.py)."""
    found = Report.read(EXAMPLE.parents[2] / "adapters" / "conformance" / f"{kind}.json")

    assert found.passed
    assert [outcome.case for outcome in found.outcomes] == [str(case) for case in CASES]
    assert experimental(kind) == ""


async def test_the_example_is_short_and_shown_as_it_is() -> None:
    """Less than a hundred lines, and what a reader copies from the page is what was tried."""
    page = (EXAMPLE.parents[2] / "docs" / "how-to" / "write-an-adapter.md").read_text()

    assert len(EXAMPLE.read_text().splitlines()) < 100
    assert EXAMPLE.read_text() in page
