"""What a run leaves of its result: arrays, pictures, and how near the truth they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from temporal_fabric.flows.pictures import pictures, psnr

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from temporal_fabric.flows.compiling import Compiled
    from temporal_fabric.flows.run_folder import RunFolder

__all__ = ["keep_result"]


def keep_result(
    files: RunFolder,
    below: str,
    compiled: Compiled,
    state: Mapping[str, NDArray[Any]],
    *,
    redact: bool = False,
) -> dict[str, dict[str, float]]:
    """Keep arrays and pictures where that is allowed; return how near the truth they are.

    Args:
        files: Where they go.
        below: What their names begin with.
        compiled: The flow, with its start and its references.
        state: The result, slot by slot.
        redact: Keep nothing but figures.

    Returns:
        Of each slot with a reference: ``start`` and ``result``, PSNR in dB.
    """
    start = {slot: np.asarray(x) for slot, x in compiled.start.items()}
    truth = {slot: np.asarray(x) for slot, x in compiled.references.items()}
    if not redact:
        for slot, array in state.items():
            files.put_array(f"{below}{slot}.npy", array)
        for name, picture in pictures(start, dict(state), truth).items():
            files.put(f"{below}{name}", picture)
    found: dict[str, dict[str, float]] = {}
    for slot, reference in truth.items():
        both = {"start": psnr(start[slot], reference), "result": psnr(state[slot], reference)}
        found[slot] = {name: x for name, x in both.items() if x is not None}
    return found
