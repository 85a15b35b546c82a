"""Telemetry from inside a payload: standard library alone, and one file to copy.

``FABRIC_TELEMETRY`` names the file the lines go to, or says ``stdout``. Outside of the fabric
the variable is not set and every call does nothing, so a script runs anywhere unchanged::

    from temporal_fabric import task

    for step in range(100):
        task.emit(step=step, loss=0.5)
        task.progress((step + 1) / 100)
"""

from __future__ import annotations

import json
import os
import sys
import time


def emit(step: int | None = None, **metrics: float) -> None:
    """Record numbers, such as ``emit(step=3, loss=0.1)``.

    Raises:
        OSError: the disk is full.
    """
    _write({**metrics} if step is None else {"step": step, **metrics})


def progress(part: float, *, stage: str | None = None) -> None:
    """Say how much is done, from 0 to 1, and what is being done.

    Raises:
        OSError: the disk is full.
    """
    _write({"progress": part} if stage is None else {"progress": part, "stage": stage})


def event(text: str, **texts: str) -> None:
    """Record that something happened, with further texts that belong to it.

    Raises:
        OSError: the disk is full.
    """
    _write({**texts, "event": text})


def _write(fields: dict[str, object]) -> None:
    where = os.environ.get("FABRIC_TELEMETRY", "")
    line = json.dumps({"at": round(time.time(), 3), **fields}, default=float)
    if where == "stdout":
        sys.stdout.write(f"::fabric:: {line}\n")
        sys.stdout.flush()
    elif where:
        # One write of a whole line: several processes may write to the same file.
        with open(where, "ab", buffering=0) as file:  # noqa: PTH123
            file.write(f"{line}\n".encode())
