"""Which devices an attempt had: a note in its folder, which outlives worker and launcher."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from temporal_fabric.shapes import is_rows, is_table

if TYPE_CHECKING:
    from pathlib import Path

RECORD = "gpus.json"


def recorded_gpus(folder: Path) -> list[str]:
    """Return the UUIDs of the devices that an attempt was given; empty where it asked for none."""
    try:
        told = json.loads((folder / RECORD).read_bytes())
    except (OSError, ValueError):
        return []
    return [str(row["id"]) for row in told if is_table(row)] if is_rows(told) else []
