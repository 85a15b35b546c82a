"""The lab adapter keeps the contract, on a real SiLA server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from temporal_fabric.adapters.conformance_report import NOT_APPLICABLE, PASSED
from temporal_fabric.testing.conformance import CASES, Case, new_report

if TYPE_CHECKING:
    from temporal_fabric.adapters.conformance_report import Report
    from temporal_fabric.testing.sila_bench import SilaBench

pytestmark = pytest.mark.asyncio(loop_scope="module")

UNMADE = {
    "a_kill_for_memory_is_told",
    "a_paused_job_stands_still",
    "a_command_ends_with_its_job",
}
"""What a device does not promise: it has no memory to limit, does not stand still, and runs no
commands of a shell."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sila_report(sila_bench: SilaBench) -> Report:
    """The report of all cases."""
    return new_report(sila_bench)


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_conforms(case: Case, sila_bench: SilaBench, sila_report: Report) -> None:
    """Every case passes; the promises that the adapter does not make are named as such."""
    outcome = await case.judge(sila_bench)
    sila_report.outcomes.append(outcome)
    wanted = NOT_APPLICABLE if str(case) in UNMADE else PASSED
    assert outcome.verdict == wanted, outcome.why
