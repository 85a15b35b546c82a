"""Progress of work that takes minutes: in place on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LINE_EVERY_S = 10.0
REDRAW_EVERY_S = 0.5


class Reporter:
    """Tells what is going on.

    Without a sink it writes to standard error. A sink gets whole lines, as seldom as a
    log file does.
    """

    def __init__(self, sink: Callable[[str], None] | None = None) -> None:
        self._sink = sink
        self._live = sink is None and sys.stderr.isatty()
        self._last = time.monotonic()
        self._drawn = False

    def note(self, text: str) -> None:
        """Say something once."""
        self._clear()
        self._line(text)

    def tick(self, text: str) -> None:
        """Say where long work stands; most calls say nothing."""
        now = time.monotonic()
        if now - self._last < (REDRAW_EVERY_S if self._live else LINE_EVERY_S):
            return
        self._last = now
        if not self._live:
            self._line(text)
            return
        sys.stderr.write(f"\r\x1b[2K{text}")
        sys.stderr.flush()
        self._drawn = True

    def _line(self, text: str) -> None:
        if self._sink is not None:
            self._sink(text)
        else:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()

    def _clear(self) -> None:
        if self._drawn:
            sys.stderr.write("\r\x1b[2K")
            self._drawn = False
