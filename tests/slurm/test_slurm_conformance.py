"""The Slurm adapter keeps the contract, all of it, by either of its ways."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from temporal_fabric.adapters.conformance_report import PASSED
from temporal_fabric.testing.conformance import CASES, Case, new_report
from temporal_fabric.testing.conformance_ending import ENDING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from temporal_fabric.adapters.conformance_report import Report
    from temporal_fabric.testing.slurm_bench import SlurmBench
    from temporal_fabric.testing.slurm_podman_bench import SlurmPodmanBench

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module", params=["bench", "rest_bench"], ids=["ssh", "rest"])
def conforming(request: pytest.FixtureRequest) -> SlurmBench:
    """One way to the site after the other."""
    found: SlurmBench = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def report(conforming: SlurmBench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Report]:
    """The report, which is written when the last case has run."""
    found = new_report(conforming)
    yield found
    path = found.write(tmp_path_factory.mktemp("conformance"))
    assert type(found).read(path) == found


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_conforms(case: Case, conforming: SlurmBench, report: Report) -> None:
    """Every case of the suite passes; there is none that a Slurm site cannot show."""
    outcome = await case.judge(conforming)
    report.outcomes.append(outcome)
    assert outcome.verdict == PASSED, outcome.why


@pytest.mark.parametrize("case", [Case(case) for case in ENDING], ids=str)
async def test_conforms_in_a_container(case: Case, podman_bench: SlurmPodmanBench) -> None:
    """What a container could change of an end passes; the way to the site is that of the others."""
    outcome = await case.judge(podman_bench)
    assert outcome.verdict == PASSED, outcome.why
