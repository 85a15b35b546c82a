"""Submissions whose replies are lost have one effect each: Kubernetes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from temporal_fabric.testing.lost_replies import lose_replies
from tests.lost_replies import SEED, TRIALS

if TYPE_CHECKING:
    from temporal_fabric.testing.kubernetes_bench import KubernetesBench

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(1800)]


async def test_kubernetes(bench: KubernetesBench) -> None:
    """Each attempt is one pod that ran once, whoever asked for it and heard nothing."""
    tally = await lose_replies(bench, TRIALS, SEED)
    print(f"kubernetes: {tally}")
    assert tally.effects == TRIALS
