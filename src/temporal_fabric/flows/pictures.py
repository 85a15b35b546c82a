"""How near a result is to a truth that is known, and what two-dimensional states look like."""

from __future__ import annotations

import math
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["pictures", "png", "psnr"]

_IMAGE = 2
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def psnr(x: NDArray[Any], reference: NDArray[Any]) -> float | None:
    """Return 10 log10(range^2 / mean squared error) in dB, with the range of the reference.

    None where there is no such number: nothing differs, or the reference is constant.
    """
    wide, truth = np.asarray(x, np.float64), np.asarray(reference, np.float64)
    error = float(np.mean((wide - truth) ** 2))
    span = float(truth.max() - truth.min())
    if not 0 < error < math.inf or span == 0:
        return None
    return 10 * math.log10(span**2 / error)


def pictures(
    start: Mapping[str, NDArray[Any]],
    result: Mapping[str, NDArray[Any]],
    reference: Mapping[str, NDArray[Any]],
) -> dict[str, bytes]:
    """Return grey pictures of the slots with two axes: the start, the result, the reference.

    The pictures of one slot share their greys: from the least to the largest number of its
    reference, or of its result where there is none.
    """
    found: dict[str, bytes] = {}
    for slot, image in result.items():
        if image.ndim != _IMAGE:
            continue
        scale = reference.get(slot, image)
        low, high = float(scale.min()), float(scale.max())
        for name, state in (("start", start), ("result", result), ("reference", reference)):
            if slot in state:
                found[f"{slot}-{name}.png"] = png(state[slot], low, high)
    return found


def png(image: NDArray[Any], low: float, high: float) -> bytes:
    """Return an image as an 8-bit grey PNG (ISO/IEC 15948), black at low and white at high."""
    grey = (np.asarray(image, np.float64) - low) / ((high - low) or 1.0)
    bytes_of = np.nan_to_num(np.clip(grey * 255, 0, 255)).round().astype(np.uint8)
    height, width = bytes_of.shape
    # Each row begins with the number of its filter: none.
    rows = np.concatenate([np.zeros((height, 1), np.uint8), bytes_of], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return _SIGNATURE + b"".join(_part(kind, data) for kind, data in parts)


def _part(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
