"""``wait``, ``result``, ``cancel``: how an experiment ends."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from temporal_fabric.cli.context import (
    EXIT_CANCELED,
    EXIT_FAILED,
    EXIT_NOT_FINISHED,
    Context,
    common,
    run,
)
from temporal_fabric.cli.output import json_out, status_out
from temporal_fabric.cli.submit import follow_to_end, report_result
from temporal_fabric.console import say
from temporal_fabric.states import State

if TYPE_CHECKING:
    from temporal_fabric.status import ExperimentStatus

_CODES = {State.SUCCEEDED: 0, State.FAILED: EXIT_FAILED, State.CANCELED: EXIT_CANCELED}


def _code(status: ExperimentStatus) -> int:
    return _CODES.get(State(status.state), EXIT_NOT_FINISHED)


@click.command(epilog="\b\nExamples:\n  temporal-fabric wait last --timeout 600")
@click.argument("experiment")
@click.option("--timeout", type=float, default=None, help="Seconds to wait at most.")
@common
def wait(shared: Context, experiment: str, timeout: float | None) -> None:
    """Wait until EXPERIMENT ends; the exit code says how."""

    async def work() -> int:
        async with shared.fabric() as fabric:
            handle = await fabric.find(experiment)
            status = await handle.status(detail=False)
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    while not status.final:
                        await asyncio.sleep(0.5)
                        status = await handle.next_status()
            if shared.json:
                json_out(status)
            else:
                click.echo(
                    f"{status.tenant}/{status.request_id} {status.state} {status.reason}".rstrip()
                )
            return _code(status)

    run(work())


@click.command(epilog="\b\nExamples:\n  temporal-fabric result last -o json")
@click.argument("experiment")
@common
def result(shared: Context, experiment: str) -> None:
    """Print the result of EXPERIMENT; the exit code says how it ended."""

    async def work() -> int:
        async with shared.fabric() as fabric:
            handle = await fabric.find(experiment)
            status = await handle.status()
            if not status.final:
                if shared.json:
                    json_out(status)
                else:
                    say(f"not finished: {status.state}; next: temporal-fabric wait {handle.id}")
                return EXIT_NOT_FINISHED
            return await report_result(shared, handle)

    run(work())


@click.command(epilog="\b\nExamples:\n  temporal-fabric get last --to results")
@click.argument("experiment")
@click.argument("name", metavar="[OUTPUT]", required=False)
@click.option("--to", required=True, help="Folder to copy into; created where it is missing.")
@common
def get(shared: Context, experiment: str, name: str | None, to: str) -> None:
    """Copy outputs of EXPERIMENT out of its capsule: one OUTPUT by name, or all of them."""

    async def work() -> None:
        async with shared.fabric() as fabric:
            files = await (await fabric.find(experiment)).get(to, name)
        if shared.json:
            json_out([str(path) for path in files])
            return
        for path in files:
            click.echo(str(path))
        if not files:
            say("note: there are no outputs")

    run(work())


@click.command(epilog="\b\nExamples:\n  temporal-fabric cancel last --wait")
@click.argument("experiment")
@click.option("--wait", "wait_", is_flag=True, help="Return when nothing of it runs any more.")
@common
def cancel(shared: Context, experiment: str, *, wait_: bool) -> None:
    """Cancel EXPERIMENT: SIGTERM, grace, SIGKILL, proof of absence, capsule."""

    async def work() -> int:
        async with shared.fabric() as fabric:
            handle = await fabric.find(experiment)
            await handle.cancel()
            status = await handle.next_status()
            while wait_ and not status.final:
                await asyncio.sleep(0.3)
                status = await handle.next_status()
            status = await handle.status()
            if shared.json:
                json_out(status)
            elif wait_:
                status_out(status)
            else:
                click.echo(f"cancellation requested: {handle.tenant}/{handle.id}")
                say(f"next: temporal-fabric wait {handle.id}")
            return _code(status) if wait_ else 0

    run(work())


@click.command(epilog="\b\nExamples:\n  temporal-fabric retry last --follow")
@click.argument("experiment")
@click.option("-f", "--follow", is_flag=True, help="Stay, show states and output.")
@common
def retry(shared: Context, experiment: str, *, follow: bool) -> None:
    """Run EXPERIMENT again after it failed: same request, next epoch, a capsule of its own."""

    async def work() -> int:
        async with shared.fabric() as fabric:
            handle = await fabric.find(experiment)
            await handle.retry()
            if follow:
                return await follow_to_end(shared, fabric, handle)
            if shared.json:
                json_out({"tenant": handle.tenant, "id": handle.id})
            else:
                click.echo(f"retrying {handle.tenant}/{handle.id}")
                say(f"next: temporal-fabric logs -f {handle.id}")
            return 0

    run(work())
