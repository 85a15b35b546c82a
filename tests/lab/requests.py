"""The request of the examples, for devices of the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]

BACKEND = """
[backends.plate-{place}]
kind = "sila"
[backends.plate-{place}.options]
address = "127.0.0.1:{port}"
tls = false
"""


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
