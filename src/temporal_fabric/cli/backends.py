"""``backends``, ``drain``, ``undrain``, ``halt``: what experiments run on, or must not."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from temporal_fabric.backend_state import SILENT, HaltInput
from temporal_fabric.cli.context import EXIT_NO_SERVER, Context, common, person, run
from temporal_fabric.cli.output import json_out
from temporal_fabric.console import say, table
from temporal_fabric.draining import Drained

if TYPE_CHECKING:
    from temporal_fabric.backend_state import BackendState, HaltAnswer


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
    with_gpus = any(told.gpus for told in found)
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
        if with_gpus:
            free = sum(gpu["state"] == "free" for gpu in told.gpus)
            rows[-1].append(f"{free} of {len(told.gpus)} free" if told.gpus else "")
        if priced:
            rows[-1].append("" if told.usd_per_hour is None else f"{told.usd_per_hour:g}")
    heads += [*(["GPUs"] if with_gpus else []), *(["USD/h"] if priced else [])]
    table("", heads, rows)
    for told in found:
        if told.unusable:
            click.echo(f"{told.name} takes nothing new: {told.unusable}")
        for gpu in told.gpus:
            if gpu["state"] != "free":
                click.echo(f"{told.name}, {gpu['name'] or 'GPU'} {gpu['id']}: {gpu['state']}")
        if told.no_gpus:
            click.echo(f"{told.name} has no GPU: {told.no_gpus}")
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


@click.command(
    epilog="""
\b
Examples:
  temporal-fabric halt plate --reason "the arm is bent"
  temporal-fabric halt plate --yes -o json
"""
)
@click.argument("backend")
@click.option("--reason", default="", help="Why: it stays in the log of the experiment.")
@click.option("--by", default=None, help="Who does it, instead of user@host.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask first.")
@common
def halt(shared: Context, backend: str, reason: str, by: str | None, *, yes: bool) -> None:
    """Stop the device of the laboratory BACKEND at once: the emergency stop.

    The experiment that has the device stops where it stands: nothing is undone, and it is HELD
    until a person has looked at the device. BACKEND is drained. On the host that drives the
    device neither worker nor server is needed for it.
    """
    if not yes:
        question = f"Stop the device of {backend} at once? Nothing is undone"
        click.confirm(question, abort=True, err=True)
    told = asyncio.run(_halt(shared, HaltInput(backend, by or person(), reason)))
    if shared.json:
        json_out(told)
        return
    name = told.backend.partition("@")[0]
    click.echo(f"{told.backend} has stopped")
    if told.request_id:
        click.echo(f"  {told.tenant}/{told.request_id}, epoch {told.epoch}: {told.message}")
    if told.question:
        click.echo(f"  a person is asked: {told.question}")
        say(f"next: temporal-fabric resolve {told.request_id} --as done|not-done|abort")
    if not told.drained:
        say(f"note: it could not be drained: temporal-fabric drain {name}", colour="red")
    say(f"then: temporal-fabric undrain {name}")


async def _halt(shared: Context, asked: HaltInput) -> HaltAnswer:
    from temporal_fabric.backends import halt, halt_here  # noqa: PLC0415

    settings = shared.settings()
    here = await halt_here(settings, asked)
    if here is not None:
        return here
    async with shared.fabric() as fabric:
        return await halt(fabric.client, settings, asked)
