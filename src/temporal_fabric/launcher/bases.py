"""The folders of the kernel below which attempts get their control groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

NONE = "none"


@dataclass(frozen=True, slots=True)
class Bases:
    """The folders below which each attempt gets its groups."""

    version: str = NONE
    """How trees are killed."""

    kill: Path | None = None
    memory: Path | None = None
    cpu: Path | None = None
    """Where version 1 counts processor time."""

    quota: Path | None = None
    """Where processor time is limited."""

    pids: Path | None = None

    def folders(self) -> list[Path]:
        """Return the distinct folders, that for killing first."""
        return distinct(self.kill, self.memory, self.cpu, self.quota, self.pids)


def distinct(*folders: Path | None) -> list[Path]:
    """Return the folders that are given, each once, in their order."""
    return list(dict.fromkeys(folder for folder in folders if folder is not None))
