"""Reading what the function of a `python` payload returned."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from temporal_fabric.capsule.reading import Capsule
from temporal_fabric.errors import CapsuleError
from temporal_fabric.python_runner import RETURN
from temporal_fabric.store import open_store

if TYPE_CHECKING:
    from temporal_fabric.config import Settings
    from temporal_fabric.messages import ExperimentResult


async def returned(result: ExperimentResult, settings: Settings) -> Any:
    """Return the function's value from the capsule.

    Raises:
        CapsuleError: there is no return value: a file, or a program, returns none.
    """
    if RETURN not in {output.path for output in result.outputs}:
        raise CapsuleError(
            f"no return value [capsule={result.capsule}]: only a function of a 'python' payload "
            "has one"
        )
    name = f"artifacts/{RETURN}"
    root = f"{settings.store}/"
    if result.capsule.startswith(root):
        key = result.capsule.removeprefix(root)
        data = await open_store(settings.store).read(f"{key}/{name}")
    else:
        path = Capsule.open(result.capsule).folder / name
        data = await asyncio.to_thread(path.read_bytes)
    return json.loads(data or b"null")
