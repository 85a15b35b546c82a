"""The local adapter keeps the contract, in every mode of its launcher."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from temporal_fabric.adapters.conformance_report import NOT_APPLICABLE, NOT_SHOWN, PASSED
from temporal_fabric.testing.conformance import CASES, Case

if TYPE_CHECKING:
    from temporal_fabric.adapters.conformance_report import Report
    from temporal_fabric.testing.local_bench import LocalBench

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_conforms(case: Case, every_bench: LocalBench, report: Report) -> None:
    """Every case of the suite passes; what this host cannot show is skipped with its reason."""
    outcome = await case.judge(every_bench)
    report.outcomes.append(outcome)
    if outcome.verdict in {NOT_SHOWN, NOT_APPLICABLE}:
        pytest.skip(outcome.why)
    assert outcome.verdict == PASSED, outcome.why
