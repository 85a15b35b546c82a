"""Words and tables for a person at a terminal: progress on stderr, answers on stdout."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

COLOURS = {
    "SUCCEEDED": "green",
    "FAILED": "red",
    "CANCELED": "yellow",
    "RUNNING": "cyan",
    "COLLECTING": "cyan",
    "RETRYING": "yellow",
    "CANCELLING": "yellow",
    "HELD": "magenta",
}

_WHOLE = frozenset({"id", "state", "reason", "submitted", "ended"})
"""Columns that are not folded however narrow the terminal is."""


def say(text: str, *, colour: str | None = None) -> None:
    """Print progress on standard error."""
    click.secho(text, fg=colour, err=True)


def slow_progress(patience_s: float = 1.0) -> Callable[[str], None]:
    """Return what prints progress on standard error, at most once in ``patience_s``.

    What is over sooner prints nothing.
    """
    told = time.monotonic()

    def tell(text: str) -> None:
        nonlocal told
        if time.monotonic() - told >= patience_s:
            told = time.monotonic()
            say(f"  {text}")

    return tell


def state_text(moment: Mapping[str, Any]) -> str:
    """Return one state change as a line, with its colours."""
    state = str(moment["state"])
    reason = f"  {moment['reason']}" if moment.get("reason") else ""
    place = f"  {moment['backend']} epoch {moment['epoch']}" if moment.get("backend") else ""
    more = f"  {moment['message']}" if moment.get("message") else ""
    return _line(moment, state, COLOURS.get(state), f"{place}{reason}{more}")


def event_text(event: Mapping[str, Any]) -> str:
    """Return a state change, or what a payload told, as a line with its colours."""
    if event["event"] == "state":
        return state_text(event)
    name, detail = str(event["event"]), dict(event["detail"])
    said = [str(detail.pop(name, "")), *(f"{key}={value}" for key, value in detail.items())]
    return _line(event, name, "blue", f"  {'  '.join(filter(None, said))}")


def _line(event: Mapping[str, Any], what: str, colour: str | None, more: str) -> str:
    return (
        click.style(f"{str(event['at'])[11:23]}  ", dim=True)
        + click.style(f"{what:<11}", fg=colour, bold=True)
        + click.style(more, dim=True)
    )


def state_line(moment: Mapping[str, Any]) -> None:
    """Print one state change on standard error."""
    click.echo(state_text(moment), err=True)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on standard output; plain and full width where that is no terminal."""
    from rich.console import Console  # noqa: PLC0415 - `--help` must not pay for it
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    wide = None if sys.stdout.isatty() else 200
    grid = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        grid.add_column(column, overflow="fold", no_wrap=column in _WHOLE)
    for row in rows:
        grid.add_row(*(Text(cell, style=COLOURS.get(cell, "")) for cell in row))
    Console(width=wide, highlight=False, soft_wrap=wide is not None).print(grid)
