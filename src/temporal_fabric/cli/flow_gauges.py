"""Live gauges of a flow: phase, energy, eta, gamma, alpha, residual."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from temporal_fabric.sparkline import sparkline

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

    from temporal_fabric.flows.controller_state import ControllerState

_COLOURS = {"GREEN": "green", "AMBER": "yellow", "RED": "red"}
_PHASES = ("reading", "looking for certificates", "running under guard", "polishing")
_CURVE = 32
_KEPT = 2000
_BAR = 40
_CURVES = {"E": "energy", "step_norm": "residual |d|", "alpha": "alpha"}
_LOGARITHMIC = frozenset({"step_norm"})
_SEEN = 1e-9
"""Relative to an energy, what is drawn of it."""

_NUMBERS = {"eta_dd": "eta_dd", "gamma": "gamma", "lambda": "lambda", "sparsity_wx": "zeros of Wx"}


class FlowGauges:
    """One run in a frame.

    Args:
        title: What stands on the frame.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._colour, self._phase = "RED", 0
        self._done, self._gap = "", ""
        self._curves: dict[str, list[float]] = {}
        self._numbers: dict[str, float] = {}

    def take(self, state: ControllerState, rows: Mapping[str, list[Any]]) -> None:
        """Take where the controller stands, and the newest rows."""
        self._colour, self._phase = state.colour.value, state.phase
        self._done = f"iteration {state.iteration}"
        if state.exit is not None:
            self._gap = "  ".join(
                f"{one.name} {one.value:.3g} of {one.bound:.3g}"
                for one in state.exit.failing
                if one.value is not None and one.bound is not None
            )
        for name in _CURVES:
            values = [value for value in rows.get(name, ()) if value is not None]
            curve = self._curves.setdefault(name, [])
            if not curve or values[-1:] != curve[-1:]:
                curve += values
                del curve[:-_KEPT]
        for name in _NUMBERS:
            found = [value for value in rows.get(name, ()) if value is not None]
            if found:
                self._numbers[name] = found[-1]

    def __rich__(self) -> RenderableType:
        """Draw it as it stands now."""
        style = _COLOURS[self._colour]
        title = Text.assemble((f" {self._title} ", "bold"), (f"{self._colour} ", f"bold {style}"))
        head = Table.grid(padding=(0, 1))
        head.add_row(
            ProgressBar(total=len(_PHASES) - 1, completed=self._phase, width=_BAR // 2),
            Text(f"phase {self._phase}: {_PHASES[self._phase]}  {self._done}"),
        )
        grid = Table.grid(padding=(0, 2))
        for name, label in _CURVES.items():
            curve = self._curves.get(name)
            if curve:
                line = Text(sparkline(_drawn(name, curve), _CURVE), style="cyan")
                grid.add_row(Text(label, style="bold"), Text(f"{curve[-1]:.6g}"), line)
        numbers = "  ".join(f"{_NUMBERS[k]} {value:.4g}" for k, value in self._numbers.items())
        parts: list[RenderableType] = [head, *([grid] if grid.row_count else [])]
        parts += [Text(text, style="dim") for text in (numbers, self._gap) if text]
        return Panel(Group(*parts), title=title, title_align="left", border_style=style)


def _drawn(name: str, curve: Sequence[float]) -> list[float]:
    """Return a curve as it is drawn; energy as what it is above its least, or the rest is flat."""
    if name == "E":
        least = min(curve)
        floor = max(_SEEN * abs(least), 1e-300)
        return [math.log10(max(value - least, floor)) for value in curve]
    return [math.log10(max(value, 1e-300)) if name in _LOGARITHMIC else value for value in curve]
