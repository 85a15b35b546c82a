"""The lab adapter keeps the contract, on a real SiLA server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from temporal_fabric.adapters.capabilities import Pausing
from temporal_fabric.adapters.conformance_report import NOT_APPLICABLE, PASSED
from temporal_fabric.errors import TransientBackendError
from temporal_fabric.testing.bench import Fault
from temporal_fabric.testing.conformance import CASES, Case, new_report
from temporal_fabric.testing.conformance_starting import QUIET_S, began

if TYPE_CHECKING:
    from temporal_fabric.adapters.conformance_report import Report
    from temporal_fabric.testing.sila_bench import SilaBench

pytestmark = pytest.mark.asyncio(loop_scope="module")

UNMADE = {
    "a_kill_for_memory_is_told",
    "a_command_ends_with_its_job",
}
"""What a device does not promise: it has no memory to limit, and runs no commands of a shell."""


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


async def test_a_pause_whose_answer_was_lost_is_asked_for_again(sila_bench: SilaBench) -> None:
    """A device refuses to pause what stands still: that is not taken for a pause, nor for none."""
    key, adapter = sila_bench.key(), sila_bench.adapter()
    code = "while True:\n    report('tick')\n    time.sleep(0.05)"
    await adapter.submit(sila_bench.attempt(key, code))
    await began(sila_bench, key, "tick")
    faulty = await sila_bench.faulty("pause", Fault.LOST_REPLY)
    assert isinstance(faulty, Pausing)
    assert isinstance(adapter, Pausing)
    with pytest.raises(TransientBackendError):
        await faulty.pause(key)
    status = await adapter.pause(key)
    ticks = sila_bench.effects(key, "tick")
    await asyncio.sleep(QUIET_S)
    still = sila_bench.effects(key, "tick")
    await adapter.resume(key)
    await began(sila_bench, key, "tick", ticks + 1)
    await sila_bench.settle()

    assert status.paused
    assert still - ticks <= 1  # one may have been on its way
