"""The Docker adapter keeps the contract, on a real engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from temporal_fabric.adapters.conformance_report import PASSED
from temporal_fabric.testing.conformance import CASES, Case, new_report

if TYPE_CHECKING:
    from collections.abc import Iterator

    from temporal_fabric.adapters.conformance_report import Report
    from temporal_fabric.testing.docker_bench import DockerBench

pytestmark = pytest.mark.asyncio(loop_scope="module")

SUBMITTING = [case for case in CASES if "submit" in str(case)]


@pytest.fixture(scope="module")
def report(docker_bench: DockerBench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Report]:
    """The report, which is written when the last case has run."""
    found = new_report(docker_bench)
    yield found
    path = found.write(tmp_path_factory.mktemp("conformance"))
    assert type(found).read(path) == found


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_conforms(case: Case, docker_bench: DockerBench, report: Report) -> None:
    """Every case of the suite passes; none is skipped."""
    outcome = await case.judge(docker_bench)
    report.outcomes.append(outcome)
    assert outcome.verdict == PASSED, outcome.why


@pytest.mark.parametrize("case", SUBMITTING, ids=str)
async def test_starts_once(case: Case, docker_start_bench: DockerBench) -> None:
    """The cases of submitting pass where it is the start of the container that is lost."""
    outcome = await case.judge(docker_start_bench)
    assert outcome.verdict == PASSED, outcome.why
