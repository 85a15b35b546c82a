"""Submissions whose replies are lost have one effect each: Slurm, over SSH and by slurmrestd."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from temporal_fabric.testing.lost_replies import lose_replies
from tests.lost_replies import SEED, TRIALS

if TYPE_CHECKING:
    from temporal_fabric.testing.slurm_bench import SlurmBench
    from temporal_fabric.testing.slurm_rest_bench import SlurmRestBench

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(1800)]


async def test_slurm(bench: SlurmBench) -> None:
    """Each attempt is one job that ran once, whoever asked for it and heard nothing."""
    tally = await lose_replies(bench, TRIALS, SEED)
    print(f"slurm: {tally}")
    assert tally.effects == TRIALS


async def test_rest(rest_bench: SlurmRestBench) -> None:
    """The same where slurmrestd takes the submissions."""
    tally = await lose_replies(rest_bench, TRIALS, SEED)
    print(f"slurmrestd: {tally}")
    assert tally.effects == TRIALS
