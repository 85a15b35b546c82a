"""``dev``, ``worker``, ``doctor``, ``demo``: what runs on this machine."""

from __future__ import annotations

import asyncio
import logging
import signal
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from temporal_fabric import names
from temporal_fabric.cli.context import Context, common, run
from temporal_fabric.cli.output import json_out
from temporal_fabric.console import say
from temporal_fabric.observability.log_lines import FORMATS, configure

if TYPE_CHECKING:
    from collections.abc import Callable

    from temporal_fabric.devserver import DevServer

log = logging.getLogger(__name__)


@click.command(
    epilog="\b\nExamples:\n  temporal-fabric dev\n  temporal-fabric dev --port 7300 --no-ui"
)
@click.option("--port", default=7233, show_default=True, help="Server port, or the next free one.")
@click.option("--ui/--no-ui", default=True, help="Serve Temporal's web UI.")
@common
def dev(shared: Context, port: int, *, ui: bool) -> None:
    """Run an embedded Temporal server and a worker until Ctrl-C.

    The server's state is a file under FABRIC_HOME: nothing accepted is lost by a kill. The
    first start may build the server once, which takes some minutes.
    """
    settings = shared.settings()

    async def work() -> None:
        server = _start_server(settings.home, port=port, ui=ui)
        try:
            say(f"server   {server.info.address}  (state in {settings.home})")
            if server.info.ui_url:
                say(f"web UI   {server.info.ui_url}", colour="cyan")
            stop = _stop_on_signals()
            watch = asyncio.create_task(_watch(server, stop))
            await _serve(shared, stop, address=server.info.address)
            watch.cancel()
        finally:
            server.stop()

    configure("text")
    run(work())


@click.command(
    epilog="""
\b
Examples:
  temporal-fabric worker
  TEMPORAL_ADDRESS=server:7233 temporal-fabric worker
"""
)
@click.option(
    "--log-format",
    type=click.Choice(FORMATS),
    default=None,
    envvar="FABRIC_LOG_FORMAT",
    help="Log lines on standard error: text on a terminal, else JSON, unless given.",
)
@common
def worker(shared: Context, log_format: str | None) -> None:
    """Run this host's worker until SIGTERM, then detach from what runs.

    Payloads outlive the worker; the next worker of this host adopts them.
    """
    as_json = configure(log_format or shared.log_format or "auto")
    if as_json:
        from temporal_fabric.connection import log_by_python  # noqa: PLC0415

        log_by_python()
    run(_serve(shared, None, address=shared.address, tell=log.info if as_json else say))


async def _serve(
    shared: Context,
    stop: asyncio.Event | None,
    address: str | None,
    tell: Callable[[str], None] = say,
) -> None:
    from temporal_fabric.service import serve  # noqa: PLC0415

    def ready(about: dict[str, Any]) -> None:
        tell(f"worker   host {about['host']}, serves {', '.join(about['backends'])}")
        if about["metrics"]:
            tell(f"metrics  {about['metrics']}")
        tell("next: temporal-fabric submit --follow REQUEST.yaml  (in another terminal)")

    await serve(
        shared.settings(),
        stop=stop or _stop_on_signals(),
        ready=ready,
        address=address,
        namespace=shared.namespace,
    )


def _start_server(home: Any, *, port: int, ui: bool) -> DevServer:
    from temporal_fabric.devserver import DevServer  # noqa: PLC0415

    return DevServer.start(
        home,
        durable=True,
        port=port,
        ui=ui,
        progress=say,
        search_attributes=names.SEARCH_ATTRIBUTES,
    )


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def _watch(server: DevServer, stop: asyncio.Event) -> None:
    """End ``dev`` when its server ends, instead of polling a dead address for ever."""
    while server.poll() is None:  # noqa: ASYNC110 - a process, not a task of ours
        await asyncio.sleep(0.5)
    say(f"the server ended with code {server.poll()}; see logs/server.log", colour="red")
    stop.set()


@click.command(epilog="\b\nExamples:\n  temporal-fabric doctor\n  temporal-fabric doctor -o json")
@common
def doctor(shared: Context) -> None:
    """Check this machine and the server, and say how to mend what is wrong."""

    async def work() -> int:
        from temporal_fabric.doctor import examine  # noqa: PLC0415

        checks = await examine(
            shared.settings(), address=shared.address, namespace=shared.namespace
        )
        if shared.json:
            json_out([asdict(check) for check in checks])
        else:
            for check in checks:
                colour = {"ok": "green", "warn": "yellow", "fail": "red"}[check.verdict]
                click.secho(f"{check.verdict:<5}", fg=colour, bold=True, nl=False)
                click.echo(f"{check.name:<18} {check.detail}")
                if check.remedy:
                    click.secho(f"     {'':<18} {check.remedy}", dim=True)
        return int(any(check.verdict == "fail" for check in checks))

    run(work())


@click.command(epilog="\b\nExamples:\n  temporal-fabric demo\n  temporal-fabric demo --seed 7")
@click.option("--seed", type=int, default=None, help="Fixes the epoch at which the worker dies.")
@common
def demo(shared: Context, seed: int | None) -> None:
    """Train a classifier, kill the worker in the middle, and see the run finish.

    Needs the extra `demo`. Uses a folder of its own below FABRIC_HOME; nothing stays running.
    """

    async def work() -> int:
        from temporal_fabric.demo.show import run_demo  # noqa: PLC0415

        return await run_demo(shared.settings(), seed=seed)

    run(work())
