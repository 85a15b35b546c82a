"""The Kubernetes adapter keeps the contract, on a real cluster."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from temporal_fabric.adapters.conformance_report import PASSED
from temporal_fabric.testing.conformance import CASES, Case, new_report
from tests.kubernetes.conftest import opened_bench

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from temporal_fabric.adapters.conformance_report import Outcome
    from tests.backends.kubernetes_cluster import KubernetesCluster

pytestmark = pytest.mark.asyncio(loop_scope="module")

_ALONE = {"a_lost_job_is_no_success", "nothing_is_left"}
"""One kills every container of the node, the other counts what is open in this process."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def outcomes(
    kubernetes: KubernetesCluster, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, asyncio.Task[Outcome]]]:
    """The outcome of every case, three at a time: most of each is waiting for the kubelet."""
    three = asyncio.Semaphore(3)

    async def judged(case: Case, after: list[asyncio.Task[Outcome]]) -> Outcome:
        if after:
            await asyncio.wait(after)
        async with three, opened_bench(kubernetes) as bench:
            return await case.judge(bench)

    found: dict[str, asyncio.Task[Outcome]] = {}
    for case in sorted(CASES, key=lambda case: str(case) in _ALONE):
        after = list(found.values()) if str(case) in _ALONE else []
        found[str(case)] = asyncio.create_task(judged(case, after))
    yield found
    await asyncio.wait(found.values())
    async with opened_bench(kubernetes) as bench:
        report = new_report(bench)
    report.outcomes += [task.result() for task in found.values()]
    path = report.write(tmp_path_factory.mktemp("conformance"))
    assert type(report).read(path) == report


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.timeout(400)
async def test_conforms(case: Case, outcomes: dict[str, asyncio.Task[Outcome]]) -> None:
    """Every case of the suite passes; none is skipped."""
    outcome = await outcomes[str(case)]
    assert outcome.verdict == PASSED, outcome.why
