"""``status``, ``list``, ``logs``, ``events``: looking, without any effect."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from temporal_fabric.cli.context import Context, common, run
from temporal_fabric.cli.output import json_out, status_out
from temporal_fabric.cli.watch import AWAY, need_terminal, watch_experiment, watch_experiments
from temporal_fabric.console import event_text, say, table
from temporal_fabric.errors import ServerUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from temporal_fabric.client import Fabric
    from temporal_fabric.status import ExperimentStatus


@click.command(
    epilog="""
\b
Examples:
  temporal-fabric status last
  temporal-fabric status digits -o json
  temporal-fabric status --watch last
"""
)
@click.argument("experiment")
@click.option("-w", "--watch", is_flag=True, help="Stay and draw it until it ends.")
@common
def status(shared: Context, experiment: str, *, watch: bool) -> None:
    """Show where EXPERIMENT stands (an id, a unique prefix, tenant/id, or last)."""
    if watch and shared.json:
        raise click.UsageError("--watch draws; 'events -o jsonl' gives a line a change")
    if watch:
        need_terminal(as_json=False)

    async def work() -> None:
        from temporal_fabric.status import recorded_status  # noqa: PLC0415

        try:
            async with shared.fabric() as fabric:
                handle = await fabric.find(experiment)
                if watch:
                    await watch_experiment(handle)
                    return
                found = await handle.status()
        except ServerUnavailable as exc:
            recorded = await recorded_status(shared.settings(), experiment)
            if recorded is None:
                raise
            _from_store(exc)
            found = recorded
        if shared.json:
            json_out(found)
        else:
            status_out(found)

    run(work())


@click.command(
    name="list",
    epilog="""
\b
Examples:
  temporal-fabric list
  temporal-fabric list --watch
  temporal-fabric list --state RUNNING -o json
""",
)
@click.option("-n", "--limit", default=30, show_default=True, help="How many at most.")
@click.option("--state", default=None, help="Only experiments in this state.")
@click.option("--tenant", default=None, help="Only this tenant's.")
@click.option("-w", "--watch", is_flag=True, help="Stay and draw the list until Ctrl-C.")
@common
def list_(
    shared: Context, limit: int, state: str | None, tenant: str | None, *, watch: bool
) -> None:
    """List the newest experiments."""
    if watch:
        need_terminal(as_json=shared.json)
    wanted = state.upper() if state else None

    async def look(fabric: Fabric) -> list[ExperimentStatus]:
        # The state of a queued one is not an attribute yet, so it is filtered here.
        many = limit if wanted is None else max(limit, 1000)
        found = await fabric.list(limit=many, tenant=tenant, detail=True)
        return [s for s in found if wanted is None or s.state == wanted][:limit]

    async def work() -> None:
        async with shared.fabric() as fabric:
            if watch:
                # Ctrl-C is how this ends, so it is no error.
                with suppress(asyncio.CancelledError):
                    await watch_experiments(fabric, lambda: look(fabric), as_json=shared.json)
                return
            found = await look(fabric)
        if shared.json:
            json_out([asdict(status) for status in found])
            return
        rows = [
            (
                s.request_id,
                s.state,
                s.reason,
                s.backend,
                s.name,
                _minute(s.submitted),
                _minute(s.ended),
            )
            for s in found
        ]
        heads = ("id", "state", "reason", "backend", "name", "submitted", "ended")
        table("", heads, rows)

    run(work())


def _minute(stamp: str) -> str:
    """Return a time to the minute: a table of a common width has room for no more."""
    return stamp[:16].replace("T", " ")


@click.command(
    epilog="\b\nExamples:\n  temporal-fabric logs last\n  temporal-fabric logs -f digits --stderr"
)
@click.argument("experiment")
@click.option("-f", "--follow", is_flag=True, help="Go on until the experiment ends.")
@click.option("--stderr", is_flag=True, help="Standard error instead of standard output.")
@common
def logs(shared: Context, experiment: str, *, follow: bool, stderr: bool) -> None:
    """Print what the payload of EXPERIMENT wrote, from this host or from its capsule."""

    async def work() -> None:
        from temporal_fabric.logs import read_logs  # noqa: PLC0415

        stream = "stderr" if stderr else "stdout"
        async with shared.fabric() as fabric:
            handle = await fabric.find(experiment)
            async for chunk in read_logs(handle, fabric.settings, stream=stream, follow=follow):
                os.write(sys.stdout.fileno(), chunk)

    run(work())


@click.command(
    epilog="\b\nExamples:\n  temporal-fabric events last\n  temporal-fabric events last -o jsonl"
)
@click.argument("experiment")
@common
def events(shared: Context, experiment: str) -> None:
    """Print each state of EXPERIMENT and each event and stage of its payload, until it ends.

    In the order of their times, each once; -o json is one object a line.
    """

    def show(event: Mapping[str, Any]) -> None:
        if shared.json:
            click.echo(json.dumps(event, ensure_ascii=False, sort_keys=True))
        else:
            click.echo(event_text(event))

    async def work() -> None:
        from temporal_fabric.events import recorded_events  # noqa: PLC0415
        from temporal_fabric.status import recorded_status  # noqa: PLC0415

        shown = False
        try:
            async with shared.fabric() as fabric:
                async for event in (await fabric.find(experiment)).events():
                    # Heartbeats are samples: another reader would see others.
                    if event["event"] == "away":
                        say(AWAY)
                    elif event["event"] != "heartbeat":
                        show(event)
                        shown = True
        except ServerUnavailable as exc:
            recorded = await recorded_status(shared.settings(), experiment)
            if recorded is None or shown:
                raise
            _from_store(exc)
            for event in recorded_events(recorded):
                show(event)

    run(work())


def _from_store(why: ServerUnavailable) -> None:
    say(f"note: {str(why).partition(':')[0]}; read from the store")


@click.command(epilog="\b\nExamples:\n  temporal-fabric explain last")
@click.argument("experiment")
@common
def explain(shared: Context, experiment: str) -> None:
    """Say why EXPERIMENT stands where it stands, and the one change that would move it now."""

    async def work() -> None:
        async with shared.fabric() as fabric:
            found = await (await fabric.find(experiment)).explain()
        if shared.json:
            json_out(found)
            return
        head = f"{found.tenant}/{found.request_id}  {found.state}  {found.reason}"
        click.echo(f"{head.rstrip()}\n  {found.why}")
        for verdict in found.verdicts:
            places = "" if verdict.slots is None else f" ({verdict.used} of {verdict.slots} taken)"
            can = ", ".join(filter(None, (f"can run it{places}", verdict.drained)))
            told = can if verdict.ok else "; ".join(verdict.reasons)
            click.echo(f"  {verdict.backend}: {told}")
        if found.change:
            click.echo(f"  would move it now: {found.change}")

    run(work())
