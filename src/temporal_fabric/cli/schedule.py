"""``schedule``: experiments on a calendar."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timedelta

import click

from temporal_fabric.cli.context import Context, common, run
from temporal_fabric.cli.output import json_out
from temporal_fabric.cli.request import read_body
from temporal_fabric.console import say, slow_progress, table

_OVERLAPS = ["SKIP", "BUFFER_ONE", "BUFFER_ALL", "CANCEL_OTHER", "TERMINATE_OTHER", "ALLOW_ALL"]


@click.group(
    epilog="""
\b
Examples:
  temporal-fabric schedule create nightly request.yaml --cron "0 3 * * *"
  temporal-fabric schedule create often request.yaml --every 600
  temporal-fabric schedule trigger nightly
  temporal-fabric schedule list

Each firing is an experiment of its own, with its time in its id.
"""
)
def schedule() -> None:
    """Run experiments on a calendar, by Temporal's own Schedules."""


@schedule.command()
@click.argument("name")
@click.argument("file")
@click.option("--cron", multiple=True, help="Cron expression; may be given several times.")
@click.option("--every", type=float, default=None, help="Seconds between two firings.")
@click.option("--time-zone", default=None, help="Of the cron expressions, such as Europe/Berlin.")
@click.option("--overlap", type=click.Choice(_OVERLAPS), default="ALLOW_ALL", show_default=True)
@click.option("--paused", is_flag=True, help="Create it without starting it.")
@click.option("--set", "settings", multiple=True, metavar="PATH=VALUE", help="Change a field.")
@common
def create(
    shared: Context,
    name: str,
    file: str,
    *,
    cron: tuple[str, ...],
    every: float | None,
    time_zone: str | None,
    overlap: str,
    paused: bool,
    settings: tuple[str, ...],
) -> None:
    """Create the schedule NAME, which runs the request in FILE; its id is NAME if it has none."""
    if not cron and every is None:
        raise click.UsageError("say when: --cron or --every")

    async def work() -> None:
        from temporal_fabric.luggage import Luggage  # noqa: PLC0415
        from temporal_fabric.requests import admit  # noqa: PLC0415
        from temporal_fabric.schedules import Schedules  # noqa: PLC0415

        admission = admit(read_body(file, settings, default_id=name))
        async with shared.fabric() as fabric:
            luggage = Luggage(fabric.settings, slow_progress())
            packed = await luggage.pack(admission)
            await luggage.send()
            await Schedules(fabric.client).create(
                name,
                packed,
                cron=cron,
                every=None if every is None else timedelta(seconds=every),
                time_zone=time_zone,
                overlap=overlap,
                paused=paused,
            )
        _done(shared, name, "created")

    run(work())


@schedule.command(name="list")
@common
def list_(shared: Context) -> None:
    """List the schedules of experiments."""

    async def work() -> None:
        from temporal_fabric.schedules import Schedules  # noqa: PLC0415

        async with shared.fabric() as fabric:
            found = await Schedules(fabric.client).list()
        if shared.json:
            json_out([asdict(entry) for entry in found])
            return
        rows = [
            (s.id, "paused" if s.paused else "active", (s.next or ["-"])[0], str(len(s.recent)))
            for s in found
        ]
        table("", ("id", "state", "next", "recent firings"), rows)

    run(work())


@schedule.command()
@click.argument("name")
@click.option("--note", default="", help="Why, for others to see.")
@common
def pause(shared: Context, name: str, note: str) -> None:
    """Stop NAME from firing until it is resumed."""
    from temporal_fabric.schedules import Schedules  # noqa: PLC0415

    async def work() -> None:
        async with shared.fabric() as fabric:
            await Schedules(fabric.client).pause(name, note=note)
        _done(shared, name, "paused")

    run(work())


@schedule.command()
@click.argument("name")
@common
def resume(shared: Context, name: str) -> None:
    """Let NAME fire again."""
    from temporal_fabric.schedules import Schedules  # noqa: PLC0415

    async def work() -> None:
        async with shared.fabric() as fabric:
            await Schedules(fabric.client).resume(name)
        _done(shared, name, "resumed")

    run(work())


@schedule.command()
@click.argument("name")
@common
def trigger(shared: Context, name: str) -> None:
    """Fire NAME once, now."""
    from temporal_fabric.schedules import Schedules  # noqa: PLC0415

    async def work() -> None:
        async with shared.fabric() as fabric:
            await Schedules(fabric.client).trigger(name)
        _done(shared, name, "triggered")

    run(work())


@schedule.command()
@click.argument("name")
@click.argument("start", type=click.DateTime(["%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%SZ"]))
@click.argument("end", type=click.DateTime(["%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%SZ"]))
@common
def backfill(shared: Context, name: str, start: datetime, end: datetime) -> None:
    """Fire NAME for every time from START to END, such as 2026-11-01T00:00:00Z."""
    from temporal_fabric.clock import utc  # noqa: PLC0415
    from temporal_fabric.schedules import Schedules  # noqa: PLC0415

    async def work() -> None:
        async with shared.fabric() as fabric:
            await Schedules(fabric.client).backfill(name, utc(start), utc(end))
        _done(shared, name, "backfilled")

    run(work())


@schedule.command()
@click.argument("name")
@common
def delete(shared: Context, name: str) -> None:
    """Remove NAME; its experiments stay."""
    from temporal_fabric.schedules import Schedules  # noqa: PLC0415

    async def work() -> None:
        async with shared.fabric() as fabric:
            await Schedules(fabric.client).delete(name)
        _done(shared, name, "deleted")

    run(work())


def _done(shared: Context, name: str, what: str) -> None:
    if shared.json:
        json_out({"schedule": name, "done": what})
        return
    click.echo(f"schedule {name} {what}")
    if what in {"created", "triggered", "backfilled"}:
        say("next: temporal-fabric list")
