"""Staying and looking: the loops behind ``--watch`` and ``--follow``."""

from __future__ import annotations

import asyncio
import codecs
import json
import os
import sys
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from temporal_fabric.cancelling import check_cancelled
from temporal_fabric.cli.output import progress_line
from temporal_fabric.console import say, state_line, state_text
from temporal_fabric.errors import ServerUnavailable
from temporal_fabric.recorder.lines import MARK

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from temporal_fabric.client import Fabric
    from temporal_fabric.handle import ExperimentHandle
    from temporal_fabric.status import ExperimentStatus

AWAY = "note: the server does not answer; the experiment goes on, and so does this once it is back"
_EVERY_S = 2.0
_TELEMETRY = MARK.decode()
_AROUND = 5
"""Lines of a screen that are not rows of the list."""


def need_terminal(*, as_json: bool) -> None:
    """Refuse to draw where nobody could see it.

    Raises:
        UsageError: standard output is no terminal.
    """
    if not as_json and not sys.stdout.isatty():
        raise click.UsageError(
            "--watch draws on a terminal, and stdout is none; '-o jsonl' gives a line a change"
        )


async def watch_experiments(
    fabric: Fabric, look: Callable[[], Awaitable[list[ExperimentStatus]]], *, as_json: bool
) -> None:
    """Show a list again and again until the reader ends it.

    Args:
        fabric: Where the experiments that run are asked for their heartbeat.
        look: Returns what to show, newest first.
        as_json: One JSON line for each experiment that changed, instead of a picture.
    """
    if as_json:
        await _told_changes(look)
        return
    from rich.console import Console, Group  # noqa: PLC0415 - `--help` must not pay for it
    from rich.live import Live  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from temporal_fabric.cli.live import experiments  # noqa: PLC0415

    console = Console()
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            check_cancelled()
            rows = max(3, console.height - _AROUND)
            try:
                found = await look()
                shown = await asyncio.gather(*(_now(fabric, status) for status in found[:rows]))
            except ServerUnavailable:
                live.update(Group(live.get_renderable(), Text(AWAY, style="yellow")), refresh=True)
                await _answers(look)
                continue
            live.update(experiments([*shown, *found[rows:]], rows), refresh=True)
            await asyncio.sleep(_EVERY_S)


async def _answers(look: Callable[[], Awaitable[object]]) -> None:
    """Return once the server answers again."""
    while True:
        await asyncio.sleep(_EVERY_S)
        with suppress(ServerUnavailable):
            await look()
            return


async def _now(fabric: Fabric, status: ExperimentStatus) -> ExperimentStatus:
    """Return a status with the last heartbeat, where there can be one."""
    if status.final:
        return status
    handle = fabric.get(status.request_id, status.tenant)
    fresh = await handle.status(detail=False)
    fresh.name = fresh.name or status.name
    return fresh


async def _told_changes(look: Callable[[], Awaitable[list[ExperimentStatus]]]) -> None:
    known: dict[str, str] = {}
    while True:
        try:
            found = await look()
        except ServerUnavailable:
            say(AWAY)
            await _answers(look)
            continue
        for status in reversed(found):
            line = json.dumps(asdict(status), ensure_ascii=False, sort_keys=True, default=str)
            if known.get(status.run_id) != line:
                known[status.run_id] = line
                click.echo(line)
        sys.stdout.flush()
        await asyncio.sleep(_EVERY_S)


async def watch_experiment(handle: ExperimentHandle) -> None:
    """Draw one experiment until it ends; the last picture stays."""
    with _drawn(handle, stay=True) as (take, _):
        async for event in handle.events():
            take(event)


async def follow(fabric: Fabric, handle: ExperimentHandle, *, output: bool) -> None:
    """Show states, progress and the payload's output until the experiment ends.

    On a terminal the state of things is drawn below the output; elsewhere each change is a
    line on standard error. Standard output carries the payload's bytes and nothing else.

    Args:
        fabric: Where the host of the experiment is asked for its log.
        handle: The experiment.
        output: Whether the payload's output is wanted.
    """
    if not sys.stderr.isatty():
        copying = asyncio.create_task(_copy_output(fabric, handle, _raw)) if output else None
        await _told(handle)
        if copying is not None:
            await copying
        return
    with _drawn(handle, stay=False) as (take, tell):
        write = _Lines(tell).write if sys.stdout.isatty() else _raw
        copying = asyncio.create_task(_copy_output(fabric, handle, write)) if output else None
        async for event in handle.events():
            take(event)
            if event["event"] == "state":
                tell(state_text(event))
        if copying is not None:
            await copying


async def _told(handle: ExperimentHandle) -> None:
    told = ""
    async for event in handle.events():
        if event["event"] == "state":
            state_line(event)
        elif event["event"] == "away":
            say(AWAY)
        elif event["event"] == "heartbeat" and (line := progress_line(event)) != told:
            told = line
            say(f"  {line}")


@contextmanager
def _drawn(
    handle: ExperimentHandle, *, stay: bool
) -> Generator[tuple[Callable[..., None], Callable[[str], None]]]:
    """Draw an experiment; yields what takes its events, and what writes a line above it."""
    from rich.console import Console  # noqa: PLC0415 - `--help` must not pay for it
    from rich.live import Live  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from temporal_fabric.cli.live import ExperimentView  # noqa: PLC0415

    view = ExperimentView(f"{handle.tenant}/{handle.id}")
    console = Console(stderr=not stay)
    with Live(view, console=console, transient=not stay, refresh_per_second=8):
        # click would write past the drawing: it looks for the stream below the redirected one.
        yield view.take, lambda line: console.print(Text.from_ansi(line), soft_wrap=True)


class _Lines:
    """Writes whole lines above a drawing: half of one would be torn by the next picture.

    Lines of telemetry are left out: the drawing shows what they say.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def write(self, data: bytes) -> None:
        """Take a piece of the payload's output; an empty one is its end."""
        *lines, self._rest = (self._rest + self._decoder.decode(data, final=not data)).split("\n")
        if not data and self._rest:
            lines, self._rest = [*lines, self._rest], ""
        for line in lines:
            if not line.startswith(_TELEMETRY):
                self._tell(line)


def _raw(data: bytes) -> None:
    os.write(sys.stdout.fileno(), data)


async def _copy_output(
    fabric: Fabric, handle: ExperimentHandle, write: Callable[[bytes], object]
) -> None:
    from temporal_fabric.logs import read_logs  # noqa: PLC0415

    async for chunk in read_logs(handle, fabric.settings, follow=True):
        write(chunk)
    write(b"")
