"""Submissions whose replies are lost have one effect each: local, Docker and the lab."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from temporal_fabric.testing.lost_replies import lose_replies
from tests.lost_replies import SEED, TRIALS

if TYPE_CHECKING:
    from temporal_fabric.testing.docker_bench import DockerBench
    from temporal_fabric.testing.local_bench import LocalBench
    from temporal_fabric.testing.sila_bench import SilaBench

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(1800)]


async def test_local(bench: LocalBench) -> None:
    """Each attempt on the local backend ran once, whoever asked for it and heard nothing."""
    tally = await lose_replies(bench, TRIALS, SEED)
    print(f"local: {tally}")
    assert tally.effects == TRIALS


async def test_docker(docker_bench: DockerBench, docker_start_bench: DockerBench) -> None:
    """Each container ran once; half of the replies are lost at its creation, half at its start."""
    for at, bench in (("creation", docker_bench), ("start", docker_start_bench)):
        tally = await lose_replies(bench, TRIALS // 2, SEED)
        print(f"docker, at the {at}: {tally}")
        assert tally.effects == TRIALS // 2


async def test_sila(sila_bench: SilaBench) -> None:
    """The device never moved twice, and a person is asked where nobody knows that it moved.

    A slow machine loses calls of its own: some attempts are never sent, or sent by a sound worker.
    """
    tally = await lose_replies(sila_bench, TRIALS, SEED)
    print(f"sila: {tally}")
    assert tally.trials == TRIALS
    assert tally.questions > TRIALS // 2
    assert TRIALS - max(1, TRIALS // 50) <= tally.effects <= TRIALS
