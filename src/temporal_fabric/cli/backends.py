"""``backends``, ``drain``, ``undrain``: what experiments run on, and taking it out of service."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from temporal_fabric.backend_state import SILENT
from temporal_fabric.cli.context import EXIT_NO_SERVER, Context, common, run
from temporal_fabric.cli.output import json_out
from temporal_fabric.console import say, table
from temporal_fabric.draining import Drained

if TYPE_CHECKING:
    from temporal_fabric.backend_state import BackendState


@click.command(
    epilog="\b\nExamples:\n  temporal-fabric backends\n  temporal-fabric backends -o json"
)
@common
def backends(shared: Context) -> None:
    """Show each backend: its places, who waits, and why it takes nothing new.

    The workers of the pools are asked. A backend of this host whose worker is silent is listed
    as such.
    """

    async def work() -> int:
        async with shared.fabric() as fabric:
            found = await fabric.backends()
        if shared.json:
            json_out([asdict(told) for told in found])
        elif found:
            _table(found)
        else:
            say("no worker answers; start one: temporal-fabric worker", colour="red")
        return 0 if found else EXIT_NO_SERVER

    run(work())


def _table(found: list[BackendState]) -> None:
    from temporal_fabric.isolation.abilities import YES  # noqa: PLC0415
    from temporal_fabric.isolation.rules import LEVELS  # noqa: PLC0415

    priced = any(told.usd_per_hour is not None for told in found)
    heads = ["backend", "kind", "health", "used", "waiting", "labels", "isolation"]
    rows: list[list[str]] = []
    for told in found:
        slots = "-" if told.slots is None else str(told.slots)
        answers = told.health != SILENT
        rows.append(
            [
                told.name,
                told.kind,
                told.health,
                f"{told.used}/{slots}" if answers else "-",
                str(told.waiting) if answers else "-",
                " ".join(f"{key}={value}" for key, value in sorted(told.labels.items())),
                " ".join(level for level in LEVELS if told.isolation.get(level) == YES),
            ]
        )
        if priced:
            rows[-1].append("" if told.usd_per_hour is None else f"{told.usd_per_hour:g}")
    table("", [*heads, *(["USD/h"] if priced else [])], rows)
    for told in found:
        if told.unusable:
            click.echo(f"{told.name} takes nothing new: {told.unusable}")
        if told.experimental:
            click.echo(f"{told.name} is experimental: {told.experimental}")


@click.command(
    epilog="""
\b
Examples:
  temporal-fabric drain local --reason "new disk, back at noon"
  temporal-fabric backends
"""
)
@click.argument("backend")
@click.option("--reason", default="", help="Why: shown to everybody whose experiments wait.")
@common
def drain(shared: Context, backend: str, reason: str) -> None:
    """Take BACKEND out of service: what runs goes on to its end, nothing new is placed there.

    It stays drained until 'undrain', also when worker or host start again.
    """
    told = _set(shared, backend, reason=reason, drained=True)
    if shared.json:
        json_out(told)
        return
    click.echo(f"{told.name} is {Drained(told.drained_since, told.drained_reason)}")
    if told.health != SILENT:
        slots = "" if told.slots is None else f"of {told.slots} "
        click.echo(f"  {told.used} {slots}places still taken, {told.waiting} waiting")
    say(f"next: temporal-fabric undrain {told.name}")


@click.command(epilog="\b\nExamples:\n  temporal-fabric undrain local")
@click.argument("backend")
@common
def undrain(shared: Context, backend: str) -> None:
    """Place experiments on BACKEND again; those that wait for it go on at once."""
    told = _set(shared, backend, reason="", drained=False)
    if shared.json:
        json_out(told)
        return
    click.echo(f"{told.name} is not drained")
    say("next: temporal-fabric backends")


def _set(shared: Context, backend: str, *, reason: str, drained: bool) -> BackendState:
    from temporal_fabric.backends import set_drained_here  # noqa: PLC0415

    found = set_drained_here(shared.settings(), backend, drained=drained, reason=reason)
    if found is not None:
        say("no worker runs here: it is noted for the next one")
        return found

    async def work() -> BackendState:
        async with shared.fabric() as fabric:
            return await (fabric.drain(backend, reason) if drained else fabric.undrain(backend))

    return asyncio.run(work())
