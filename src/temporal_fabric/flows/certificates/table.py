"""A decision as a table for a person at a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from temporal_fabric.flows.certificates.profiles import Stage
from temporal_fabric.flows.certificates.record import Verdict

if TYPE_CHECKING:
    from rich.console import RenderableType

    from temporal_fabric.flows.certificates.decision import Decision
    from temporal_fabric.flows.certificates.record import Certificate

__all__ = ["TITLES", "certificate_table"]

TITLES = {
    Stage.BEFORE: "certificates before the run",
    Stage.DURING: "certificates of the steps so far",
    Stage.EXIT: "certificates of the result",
}
_COLOURS = {
    "GREEN": "bold green",
    "AMBER": "bold yellow",
    "RED": "bold red",
    Verdict.PASS: "green",
    Verdict.HELD: "green",
    Verdict.REPORTED: "dim",
    Verdict.UNPROVEN: "red",
    Verdict.ABSENT: "red",
    Verdict.FAIL: "bold red",
}


def certificate_table(decision: Decision) -> RenderableType:
    """Return the certificates against their bounds, and below them what to change."""
    title = Text.assemble((decision.name, _COLOURS[decision.colour]), f"  {TITLES[decision.stage]}")
    grid = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column, justify in (("certificate", "left"), ("value", "right"), ("bound", "right")):
        grid.add_column(column, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for column in ("kind", "verdict"):
        grid.add_column(column, no_wrap=True)
    grid.add_column("how", style="dim", overflow="fold")
    for one in decision.certificates:
        grid.add_row(
            one.name,
            number(one.value),
            "" if one.bound is None else f"{one.relation.value} {number(one.bound)}",
            _kind(one),
            Text(one.verdict.value, style=_COLOURS[one.verdict]),
            one.method,
        )
    for name in decision.missing:
        grid.add_row(name, "-", "", "", Text("not looked at yet", style="yellow"), "")
    closing = (one for one in decision.certificates if one.verdict.closes)
    lines = [
        *(Text.assemble((f"{one.name}: ", "bold red"), one.sentence) for one in closing),
        *(Text.assemble(("claimed: ", "bold green"), claim) for claim in decision.claims),
    ]
    return Group(grid, *([Text()] if lines else []), *lines)


def number(value: float | None) -> str:
    """Return a value in four digits; a dash where there is none."""
    return "-" if value is None else f"{value:.4g}"


def _kind(one: Certificate) -> str:
    return f"P {one.delta:.0e}" if one.kind.value == "P" else one.kind.value
