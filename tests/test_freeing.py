"""What a host drops of a sealed run, and what belongs to the next one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from temporal_fabric.activities.seal import free
from temporal_fabric.config import Settings
from temporal_fabric.plugin import FabricPlugin
from temporal_fabric.workplace import Workplace

if TYPE_CHECKING:
    from pathlib import Path


async def test_the_run_after_a_reset_keeps_its_folders(tmp_path: Path) -> None:
    """The old run is sealed while the new one works: its epochs go, and nothing of the other's."""
    settings = Settings.load(home=tmp_path, env={}, cwd=tmp_path)
    desk = FabricPlugin(settings).desk
    record = desk.record("default", "again")
    runs = ("old", "old", "new", "new")
    epochs = [
        (await record.allocate(run, number, "away@other", workflow_id="w")).epoch
        for number, run in enumerate(runs)
    ]
    places = [Workplace.of(settings.runs, "default", "again", epoch) for epoch in epochs]
    for place in places:
        place.create()
    (places[0].root / "notes").touch()

    await free(desk, record, epochs[1])
    left = [place.folder.exists() for place in places]
    shared = places[0].checkpoints.exists()
    await free(desk, record, epochs[2])
    await desk.aclose()

    assert left == [False, False, True, True]
    assert shared
    assert not places[0].root.exists()
