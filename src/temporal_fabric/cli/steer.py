"""``pause``, ``resume``, ``reprioritise``, ``resolve``: steering what has not ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from temporal_fabric.cli.context import Context, common, person, run
from temporal_fabric.cli.output import json_out
from temporal_fabric.console import say
from temporal_fabric.states import State

if TYPE_CHECKING:
    from temporal_fabric.status import ExperimentStatus


def _report(shared: Context, status: ExperimentStatus, next_: str = "") -> None:
    if shared.json:
        json_out(status)
        return
    click.echo(f"{status.tenant}/{status.request_id} {status.state} {status.reason}".rstrip())
    if next_:
        say(f"next: temporal-fabric {next_} {status.request_id}")


@click.command(epilog="\b\nExamples:\n  temporal-fabric pause last\n  temporal-fabric resume last")
@click.argument("experiment")
@common
def pause(shared: Context, experiment: str) -> None:
    """Let EXPERIMENT stand still: no place while queued, no processor time while it runs.

    A running payload keeps its memory, its processes and its place; its wall limit stands
    still, its deadline does not. Cancelling a paused experiment works as always.
    """

    async def work() -> None:
        async with shared.fabric() as fabric:
            status = await (await fabric.find(experiment)).pause()
        _report(shared, status, "resume" if status.state == State.PAUSED else "status")
        if status.state != State.PAUSED:
            say("note: not paused yet; it will be as soon as its payload runs and its host answers")

    run(work())


@click.command(epilog="\b\nExamples:\n  temporal-fabric resume last")
@click.argument("experiment")
@common
def resume(shared: Context, experiment: str) -> None:
    """Let a paused EXPERIMENT go on, as the same processes and from its place in line."""

    async def work() -> None:
        async with shared.fabric() as fabric:
            status = await (await fabric.find(experiment)).resume()
        _report(shared, status, "logs -f")

    run(work())


@click.command(epilog="\b\nExamples:\n  temporal-fabric reprioritise last 9")
@click.argument("experiment")
@click.argument("priority", type=int)
@common
def reprioritise(shared: Context, experiment: str, priority: int) -> None:
    """Change how urgent EXPERIMENT is: PRIORITY from 1 to 10, 10 most urgent.

    While it waits for a place it moves in line at once; later the number counts for its next
    attempt.
    """

    async def work() -> None:
        async with shared.fabric() as fabric:
            status = await (await fabric.find(experiment)).reprioritise(priority)
        _report(shared, status)

    run(work())


@click.command(
    epilog="""
\b
Examples:
  temporal-fabric list --state HELD
  temporal-fabric resolve last --as not-done --note "the host was switched off at noon"
"""
)
@click.argument("experiment")
@click.option(
    "--as",
    "answer",
    required=True,
    type=click.Choice(["done", "not-done", "abort"]),
    help="What is so.",
)
@click.option("--note", default="", help="Why; it stays in the result.")
@click.option("--by", default=None, help="Who says so, instead of user@host.")
@common
def resolve(shared: Context, experiment: str, answer: str, note: str, by: str | None) -> None:
    """Answer the question that EXPERIMENT, which is HELD, puts to a person.

    `status` shows the question, and what follows from each answer. The first answer counts. If
    what was asked about turns up before, the answer is refused and nothing has changed.
    """

    async def work() -> None:
        async with shared.fabric() as fabric:
            handle = await fabric.find(experiment)
            asked = (await handle.status()).question.get("number", 0)
            status = await handle.resolve(answer, by=by or person(), note=note, question=asked)
        _report(shared, status, "status")

    run(work())
