"""Reading what the function of a `python` payload returned."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from temporal_fabric.capsule.reading import Capsule
from temporal_fabric.errors import CapsuleError
from temporal_fabric.python_runner import RETURN

if TYPE_CHECKING:
    from temporal_fabric.outcomes import ExperimentResult


async def returned(result: ExperimentResult) -> Any:
    """Return the function's value from the capsule.

    Raises:
        CapsuleError: there is no return value: a file, or a program, returns none.
    """
    if RETURN not in {output.path for output in result.outputs}:
        raise CapsuleError(
            f"no return value [capsule={result.capsule}]: only a function of a 'python' payload "
            "has one"
        )
    capsule = await asyncio.to_thread(Capsule.open, result.capsule)
    return json.loads(await asyncio.to_thread(capsule.read, f"artifacts/{RETURN}"))
