"""Every released shape of the workflow replays, and a changed order is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer
from temporalio.workflow import NondeterminismError

from temporal_fabric import names
from temporal_fabric.plugin import FabricPlugin

HISTORIES = sorted((Path(__file__).parent / "histories").glob("*.json"))


def _history(path: Path) -> WorkflowHistory:
    # Under its own id: what a run starts is named after it.
    shape = path.stem.partition("-")[2]
    return WorkflowHistory.from_json(names.workflow_id("default", shape), path.read_text())


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
async def test_recorded_history_replays(path: Path) -> None:
    """A history of a released version takes the same decisions today."""
    replayer = Replayer(workflows=[], plugins=[FabricPlugin()])

    done = await replayer.replay_workflow(_history(path))

    assert done.replay_failure is None


def test_every_shape_is_there() -> None:
    """Every way through the workflow that was ever released is recorded."""
    shapes = {path.stem.partition("-")[2] for path in HISTORIES}

    released = "succeeded failed-after-retry cancelled refused paused overdue denied notified"
    released += " revoked held held-and-cancelled rolled-back sealed-without-host"
    released += " flow flow-steps flow-stopped flow-stopped-steps"
    assert shapes >= set(released.split())


async def test_a_planted_reorder_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Swapping two activities makes the replay fail, so the replay test can fail."""
    attempt, seal = names.ACTIVITY_ATTEMPT, names.ACTIVITY_SEAL
    monkeypatch.setattr(names, "ACTIVITY_ATTEMPT", seal)
    monkeypatch.setattr(names, "ACTIVITY_SEAL", attempt)
    path = next(path for path in HISTORIES if path.stem.endswith("succeeded"))

    with pytest.raises(NondeterminismError):
        await Replayer(workflows=[], plugins=[FabricPlugin()]).replay_workflow(_history(path))
