"""The Kubernetes adapter keeps the contract, on a real cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from temporal_fabric.adapters.conformance_report import PASSED
from temporal_fabric.testing.conformance import CASES, Case

if TYPE_CHECKING:
    from temporal_fabric.adapters.conformance_report import Report
    from temporal_fabric.testing.kubernetes_bench import KubernetesBench

pytestmark = pytest.mark.asyncio(loop_scope="module")

_NOT_SHOWN = {"a_command_ends_with_its_job"}
"""What this adapter does not offer."""


@pytest.mark.parametrize("case", [case for case in CASES if str(case) not in _NOT_SHOWN], ids=str)
async def test_conforms(case: Case, bench: KubernetesBench, report: Report) -> None:
    """Every case of the suite passes, and none is left out for want of the backend."""
    outcome = await case.judge(bench)
    report.outcomes.append(outcome)
    assert outcome.verdict == PASSED, outcome.why
