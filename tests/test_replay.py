"""Every released shape of the workflow replays, and a changed order is noticed."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer
from temporalio.workflow import NondeterminismError

from temporal_fabric.plugin import FabricPlugin

if TYPE_CHECKING:
    from types import ModuleType

HISTORIES = sorted((Path(__file__).parent / "histories").glob("*.json"))


def _history(path: Path) -> WorkflowHistory:
    return WorkflowHistory.from_json(path.stem, path.read_text())


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
async def test_recorded_history_replays(path: Path) -> None:
    """A history of a released version takes the same decisions today."""
    replayer = Replayer(workflows=[], plugins=[FabricPlugin()])

    done = await replayer.replay_workflow(_history(path))

    assert done.replay_failure is None


def test_every_shape_is_there() -> None:
    """Success, failure after a retry, cancellation and refusal are recorded."""
    shapes = {path.stem.partition("-")[2] for path in HISTORIES}

    assert shapes >= {"succeeded", "failed-after-retry", "cancelled", "refused"}


class _Swap(ast.NodeTransformer):
    """Plants a reorder: `seal` is called before `attempt` instead of after it."""

    def visit_Attribute(self, node: ast.Attribute) -> Any:
        """Exchange two activity names."""
        swapped = {"ACTIVITY_ATTEMPT": "ACTIVITY_SEAL", "ACTIVITY_SEAL": "ACTIVITY_ATTEMPT"}
        node.attr = swapped.get(node.attr, node.attr)
        return self.generic_visit(node)


def _reordered(folder: Path) -> ModuleType:
    import temporal_fabric.workflows.experiment as original  # noqa: PLC0415

    tree = _Swap().visit(ast.parse(Path(original.__file__ or "").read_text()))
    path = folder / "reordered_experiment.py"
    path.write_text(ast.unparse(tree))
    spec = importlib.util.spec_from_file_location("reordered_experiment", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["reordered_experiment"] = module
    spec.loader.exec_module(module)
    return module


async def test_a_planted_reorder_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Swapping two activities makes the replay fail, so the replay test can fail."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    module = _reordered(tmp_path)
    path = next(path for path in HISTORIES if path.stem.endswith("succeeded"))

    with pytest.raises(NondeterminismError):
        await Replayer(workflows=[module.Experiment]).replay_workflow(_history(path))
