"""The demo's second payload: outline a photograph, with a package of its own.

A function as a user would write it: it reads its staged input, writes an image beside its
result, and returns what it measured. Pillow comes from the request's environment.
"""

# Pillow is in the environment of the request, not in the project's.
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image, ImageFilter, ImageStat


def outline(threshold: int) -> dict[str, object]:
    """Draw the outline of ``photo.jpg``.

    Args:
        threshold: Grey value, 0 to 255, from which a pixel counts as an edge.

    Returns:
        Width and height in pixels, the mean colour as red, green, blue, and the share of
        edge pixels, 0 to 1.
    """
    photo = Image.open(Path(os.environ["FABRIC_INPUT_DIR"], "photo.jpg"))
    edges = photo.convert("L").filter(ImageFilter.FIND_EDGES)
    drawn = edges.point(lambda grey: 255 if grey >= threshold else 0)
    drawn.save(Path(os.environ["FABRIC_OUTPUT_DIR"], "outline.png"))
    share = ImageStat.Stat(drawn).mean[0] / 255
    return {
        "size": list(photo.size),
        "mean_colour": [round(value) for value in ImageStat.Stat(photo).mean],
        "edge_share": round(share, 4),
    }
