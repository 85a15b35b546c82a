"""What a launcher leaves that was killed in a home where no other one will start."""

from __future__ import annotations

from pathlib import Path

from temporal_fabric.launcher.cgroups import sweep_base
from temporal_fabric.launcher.sweep import read_info

_LIMIT_S = 10.0


def clear_groups(home: Path) -> None:
    """Remove the control groups of a dead launcher; otherwise the home's next one would.

    Args:
        home: The launcher's folder.
    """
    for base in read_info(home).get("bases", ()):
        sweep_base(Path(base), _LIMIT_S)
