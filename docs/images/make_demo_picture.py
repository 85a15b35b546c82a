# ruff: noqa: INP001 - a script beside the picture it makes, not a package
"""Make ``demo.svg`` from what a real run printed.

Capture a run in a terminal, with its colours, then make the picture from it::

    script -qc 'stty cols 96; temporal-fabric demo --seed 7' demo.txt
    python docs/images/make_demo_picture.py demo.txt docs/images/demo.svg
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH = 96
TITLE = "temporal-fabric demo"

_FONT_FACE = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->\s*", re.DOTALL)
_SCRIPT_LINE = re.compile(r"^Script (started|done) .*\n?", re.MULTILINE)


def picture(captured: str) -> str:
    """Return the captured output of a terminal as an SVG that loads nothing from elsewhere."""
    text = _SCRIPT_LINE.sub("", captured.replace("\r\n", "\n")).strip("\n")
    console = Console(
        record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    console.print(Text.from_ansi(text), soft_wrap=False)
    drawn = console.export_svg(title=TITLE, unique_id="demo")
    # The template names a web font; a reader's own monospace font does as well.
    drawn = _COMMENT.sub("", _FONT_FACE.sub("", drawn))
    return drawn.replace("Fira Code", "DejaVu Sans Mono")


def main(args: Sequence[str]) -> int:
    """Read the captured text from the first path, write the picture to the second."""
    source, target = (Path(arg) for arg in args)
    target.write_text(picture(source.read_text()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
