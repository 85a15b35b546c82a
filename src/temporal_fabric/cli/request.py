"""``init``, ``validate``, ``schema``, ``plan``, ``clone``: requests before they run."""

from __future__ import annotations

import re
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from temporal_fabric.cli.context import EXIT_NO_SERVER, EXIT_REFUSED, Context, common, run
from temporal_fabric.cli.output import json_out
from temporal_fabric.console import say, table

if TYPE_CHECKING:
    from temporal_fabric.messages import PlanAnswer

SET_OPTION = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="PATH=VALUE",
    help="Change a field, such as retry.max_attempts=3; may be given several times.",
)


def read_body(
    file: str, settings: tuple[str, ...] = (), *, default_id: str | None = None
) -> dict[str, Any]:
    """Read a request file, or ``-`` for stdin, as an admitted body with fields replaced.

    A body without an id gets ``default_id``, or a fresh one. A task of another runner and a
    script with #SBATCH lines are converted, and how they were mapped is said on stderr.
    """
    from temporal_fabric.overrides import apply_overrides  # noqa: PLC0415
    from temporal_fabric.requests import admit  # noqa: PLC0415

    if file != "-" and not Path(file).is_file():
        raise click.UsageError(f"no such file: {file}")
    data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    stem = re.sub(r"[^a-z0-9-]+", "-", Path(file).stem.lower()).strip("-")[:40] or "run"
    fresh = default_id or f"{stem}-{secrets.token_hex(3)}"
    admission = admit(data, source=file, default_id=fresh)
    for note in admission.notes:
        say(f"note: {note}")
    return apply_overrides(admission.request.to_body(), settings)


@click.command(epilog="\b\nExamples:\n  temporal-fabric init\n  temporal-fabric init my-study")
@click.argument("folder", default=".")
@common
def init(shared: Context, folder: str) -> None:
    """Write a commented request.yaml and fabric.toml into FOLDER; nothing is overwritten."""
    from temporal_fabric.templates import CONFIG, REQUEST  # noqa: PLC0415

    target = Path(folder)
    files = {target / "request.yaml": REQUEST, target / "fabric.toml": CONFIG}
    existing = [str(path) for path in files if path.exists()]
    if existing:
        raise click.UsageError(f"not overwritten: {', '.join(existing)}")
    target.mkdir(parents=True, exist_ok=True)
    for path, text in files.items():
        path.write_text(text)
    if shared.json:
        json_out({"files": [str(path) for path in files]})
        return
    for path in files:
        click.echo(f"wrote {path}")
    say(f"next: temporal-fabric submit --follow {target / 'request.yaml'}")


@click.command(
    epilog="""
\b
Examples:
  temporal-fabric validate request.yaml
  temporal-fabric validate job.sbatch -o json
"""
)
@click.argument("file")
@SET_OPTION
@common
def validate(shared: Context, file: str, settings: tuple[str, ...]) -> None:
    """Check FILE and report every problem at once; nothing is started."""
    from temporal_fabric.luggage import admitted_with_energy  # noqa: PLC0415
    from temporal_fabric.requests import admit  # noqa: PLC0415

    admission = admitted_with_energy(admit(read_body(file, settings)))
    if shared.json:
        json_out({"valid": True, "digest": admission.digest, "body": admission.request.to_body()})
        return
    click.echo(f"valid: {admission.request.kind} experiment {admission.request.id}")
    click.echo(f"digest {admission.digest}")


@click.command(epilog="\b\nExamples:\n  temporal-fabric schema > request.schema.json")
@common
def schema(shared: Context) -> None:
    """Print the JSON Schema of a request, for editors and other programs."""
    del shared
    from temporal_fabric.requests import json_schema  # noqa: PLC0415

    json_out(json_schema())


@click.command(epilog="\b\nExamples:\n  temporal-fabric plan request.yaml")
@click.argument("file")
@SET_OPTION
@common
def plan(shared: Context, file: str, settings: tuple[str, ...]) -> None:
    """Show where FILE would run and why not elsewhere; nothing is started."""
    run(show_plan(shared, read_body(file, settings)))


async def show_plan(shared: Context, body: dict[str, Any]) -> int:
    """Print a verdict per backend; return the exit code."""
    from temporal_fabric.luggage import admitted_with_energy  # noqa: PLC0415
    from temporal_fabric.requests import admit  # noqa: PLC0415

    async with shared.fabric() as fabric:
        answer = await fabric.plan(admitted_with_energy(admit(body)).request)
    if answer is None:
        say("no worker of the pool answered; start one: temporal-fabric worker", colour="red")
        return EXIT_NO_SERVER
    if shared.json:
        json_out(answer)
    else:
        _plan_out(answer)
    return 0 if answer.backend else EXIT_REFUSED


def _plan_out(answer: PlanAnswer) -> None:
    from temporal_fabric.verdicts import drained_change, refusal_code  # noqa: PLC0415

    rows: list[tuple[str, str, str, str]] = []
    for verdict in answer.verdicts:
        places = "-" if verdict.slots is None else f"{verdict.used}/{verdict.slots}"
        if verdict.ok:
            first = "taken" if verdict.backend == answer.backend else "fits"
            told = "waits" if verdict.drained else first
            rows.append((verdict.backend, told, places, verdict.drained))
        for reason, change in zip(verdict.reasons, verdict.changes, strict=True):
            rows.append((verdict.backend, "no", places, f"{reason}; {change}"))
    table("", ("backend", "verdict", "used", "why not"), rows)
    for host in answer.silent:
        say(f"the worker of {host} takes from the same pool and did not say what it can run")
    if not answer.backend:
        said = f"the nearest change that would fit, {answer.nearest_change}"
        say(f"{refusal_code(answer)}; {said}")
    if change := drained_change(answer):
        say(f"DRAINED: it would wait; this would start it: {change}")
