"""What a terminal shows of experiments that go on: drawn anew at every look, never logged."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from temporal_fabric.console import COLOURS
from temporal_fabric.sparkline import sparkline
from temporal_fabric.states import FINAL, State
from temporal_fabric.units import duration_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

    from temporal_fabric.status import ExperimentStatus

_CURVE = 32
_METRICS = 8
_BAR = 40
_KEPT = 2000


class ExperimentView:
    """One experiment in a frame: states with their durations, progress, metrics as curves.

    Args:
        title: What stands on the frame.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._timeline: list[dict[str, Any]] = []
        self._beat: dict[str, Any] = {}
        self._curves: dict[str, list[float]] = {}
        self._spinner = Spinner("dots")
        self._away = False

    def take(self, event: Mapping[str, Any]) -> None:
        """Take one event of `ExperimentHandle.events`."""
        self._away = event["event"] == "away"
        if event["event"] == "state":
            self._timeline.append(dict(event))
            return
        if event["event"] != "heartbeat":
            return
        self._beat = dict(event)
        for name, value in self._beat.get("metrics", {}).items():
            if isinstance(value, int | float) and math.isfinite(value):
                curve = self._curves.setdefault(name, [])
                curve.append(float(value))
                del curve[:-_KEPT]

    def __rich__(self) -> RenderableType:
        """Draw it as it stands now."""
        state = self._timeline[-1]["state"] if self._timeline else State.QUEUED
        title = Text.assemble((f" {self._title} ", "bold"), (f"{state} ", _style(state, "bold")))
        rows = [self._way(state), self._place(), self._doing(), *self._metrics()]
        parts = [part for part in rows if part is not None]
        return Panel(Group(*parts), title=title, title_align="left", border_style=_style(state))

    def _way(self, state: str) -> RenderableType:
        """Draw the states it went through, each with the time it took."""
        line = Table.grid(padding=(0, 1))
        cells: list[RenderableType] = []
        ends = [*(moment["at"] for moment in self._timeline), ""][1:]
        for moment, end in zip(self._timeline, ends, strict=True):
            name = str(moment["state"])
            took = "" if name in FINAL else f" {duration_text(_seconds(moment['at'], end))}"
            cells.append(Text.assemble((name, _style(name)), (took, "dim")))
        if state not in FINAL:
            cells.append(self._spinner)
        shown = cells[-6:]
        line.add_row(*shown)
        return line

    def _place(self) -> RenderableType | None:
        if self._away:
            return Text("the server does not answer; waiting for it", style="yellow")
        last = self._timeline[-1] if self._timeline else {}
        parts = [
            f"{last['backend']}, epoch {last['epoch']}" if last.get("backend") else "",
            str(self._beat.get("native_id", "")),
            str(last.get("reason") or self._beat.get("reason") or ""),
        ]
        text = " · ".join(part for part in parts if part)
        return Text(text, style="dim") if text else None

    def _doing(self) -> RenderableType | None:
        beat = self._beat
        if "progress" not in beat:
            words = [str(beat[name]) for name in ("doing", "stage") if beat.get(name)]
            return Text(" · ".join(words)) if words else None
        line = Table.grid(padding=(0, 1))
        done = min(max(float(beat["progress"]), 0.0), 1.0)
        tail = [f"{done:.0%}"]
        if beat.get("eta_s"):
            tail.append(f"{duration_text(beat['eta_s'])} left")
        if beat.get("stage"):
            tail.append(str(beat["stage"]))
        if "step" in beat:
            tail.append(f"step {beat['step']}")
        line.add_row(ProgressBar(total=1.0, completed=done, width=_BAR), Text("  ".join(tail)))
        return line

    def _metrics(self) -> Sequence[RenderableType]:
        if not self._curves:
            return ()
        grid = Table.grid(padding=(0, 2))
        for name, curve in list(self._curves.items())[:_METRICS]:
            grid.add_row(
                Text(name, style="bold"),
                Text(f"{curve[-1]:.5g}", justify="right"),
                Text(sparkline(curve, _CURVE), style="cyan"),
            )
        return (grid,)


def experiments(found: Sequence[ExperimentStatus], rows: int) -> RenderableType:
    """Draw a list of experiments, newest first, with what each does now.

    Args:
        found: Where they stand, with the last heartbeat of those that run.
        rows: How many fit the screen.
    """
    grid = Table(box=None, pad_edge=False, expand=True)
    grid.add_column("id", no_wrap=True)
    grid.add_column("state", no_wrap=True)
    grid.add_column("progress", no_wrap=True, min_width=24)
    grid.add_column("for", justify="right", no_wrap=True)
    grid.add_column("backend", overflow="ellipsis", no_wrap=True)
    grid.add_column("name", overflow="ellipsis", no_wrap=True, ratio=1)
    for status in found[:rows]:
        grid.add_row(
            Text(status.request_id),
            Text(status.state, style=_style(status.state, "bold")),
            _progress(status),
            Text(duration_text(_seconds(status.submitted, status.ended))),
            Text(status.backend, style="dim"),
            Text(status.name),
        )
    return Group(grid, Text(), _totals(found, rows))


def _totals(found: Sequence[ExperimentStatus], rows: int) -> Text:
    count: dict[str, int] = {}
    for status in found:
        count[status.state] = count.get(status.state, 0) + 1
    line = Text()
    for state, number in count.items():
        line.append(f"{number} {state}  ", style=_style(state))
    hidden = len(found) - rows
    line.append(f"{hidden} more below  " if hidden > 0 else "", style="dim")
    line.append(f"{datetime.now(UTC):%H:%M:%S} UTC, Ctrl-C ends", style="dim")
    return line


def _progress(status: ExperimentStatus) -> RenderableType:
    live = status.live
    if status.final or "progress" not in live:
        said = status.reason or live.get("reason") or live.get("doing") or live.get("stage") or ""
        return Text(str(said), style="dim")
    done = min(max(float(live["progress"]), 0.0), 1.0)
    left = f" {duration_text(live['eta_s'])} left" if live.get("eta_s") else ""
    line = Table.grid(padding=(0, 1))
    line.add_row(ProgressBar(total=1.0, completed=done, width=12), Text(f"{done:.0%}{left}"))
    return line


def _seconds(start: str, end: str) -> float:
    if not start:
        return 0.0
    until = datetime.fromisoformat(end) if end else datetime.now(UTC)
    return (until - datetime.fromisoformat(start)).total_seconds()


def _style(state: str, more: str = "") -> str:
    return f"{COLOURS.get(state, '')} {more}".strip()
