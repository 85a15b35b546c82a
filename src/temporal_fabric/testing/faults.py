"""Stopping a fabric at a named fail point: see `temporal_fabric.failpoints`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from temporal_fabric.failpoints import FOLDER_ENV

if TYPE_CHECKING:
    from pathlib import Path

    from temporal_fabric.failpoints import FailPoint


class FailPoints:
    """Arms fail points of the processes that were started with `env`.

    Args:
        folder: A folder of the test's own; made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def env(self) -> dict[str, str]:
        """Variables that make a process look for armed points."""
        return {FOLDER_ENV: str(self._folder)}

    def arm(self, point: FailPoint) -> None:
        """Let the next process that reaches the point wait there."""
        for state in ("reached", "go"):
            (self._folder / f"{point}.{state}").unlink(missing_ok=True)
        (self._folder / f"{point}.armed").touch()

    async def reached(self, point: FailPoint, limit_s: float = 30.0) -> None:
        """Return once a process waits at the point.

        Raises:
            TimeoutError: none came.
        """
        async with asyncio.timeout(limit_s):
            while not (self._folder / f"{point}.reached").exists():  # noqa: ASYNC110 - a file
                await asyncio.sleep(0.005)

    def let_go(self, point: FailPoint) -> None:
        """Let whoever waits at the point go on."""
        (self._folder / f"{point}.go").touch()
