"""The request of the examples, for devices of the tests, and what comes of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from temporal_fabric.handle import ExperimentHandle

ROOT = Path(__file__).parents[2]

BACKEND = """
[backends.plate-{place}]
kind = "sila"
[backends.plate-{place}.options]
address = "127.0.0.1:{port}"
tls = false
"""

MOVES = Counter(
    {
        "pick": 1,
        "move": 3,
        "lid": 2,
        "dispense": 2,
        "incubate": 1,
        "read": 1,
        "put back": 1,
        "park": 1,
    }
)
"""The movements of one whole run."""


def plate(place: int) -> dict[str, Any]:
    """Return the example's request for one of the devices."""
    body: dict[str, Any] = yaml.safe_load((ROOT / "examples/plate.yaml").read_text())
    body["id"] = body["payload"]["lab"]["device"] = f"plate-{place}"
    return body


def body(name: str, **changed: Any) -> dict[str, Any]:
    """Return the example's request under a name, with some steps' parameters changed."""
    found = plate(1)
    found["id"] = name
    for step in found["payload"]["lab"]["steps"]:
        step["parameters"] = {**step.get("parameters", {}), **changed.get(step["command_id"], {})}
    return found


async def held(handle: ExperimentHandle) -> str:
    """Return the question that an experiment puts to a person."""
    async with asyncio.timeout(60):
        while (status := await handle.status()).state != "HELD":
            await asyncio.sleep(0.2)
    return str(status.question["text"])
