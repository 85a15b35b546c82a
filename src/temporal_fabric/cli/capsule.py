"""``capsule ls|show|verify|query|report|diff``: sealed capsules, without a server."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from temporal_fabric import durable
from temporal_fabric.cli.context import Context, common
from temporal_fabric.cli.output import json_out
from temporal_fabric.console import say, table
from temporal_fabric.errors import CapsuleError

if TYPE_CHECKING:
    from temporal_fabric.capsule.reading import Capsule
    from temporal_fabric.config import Settings

EXIT_DIFFERS = 1


@click.group()
def capsule() -> None:
    """Look into sealed capsules; needs no server."""


@capsule.command(name="ls", epilog="\b\nExamples:\n  temporal-fabric capsule ls -o json")
@common
def ls(shared: Context) -> None:
    """List the capsules of the store, newest first."""
    found = _all(shared.settings())
    if shared.json:
        json_out([_summary(one) for one in found])
        return
    heads = ("id", "epoch", "state", "reason", "sealed", "files", "bytes")
    rows = [
        (
            f"{one.manifest.experiment['tenant']}/{one.manifest.experiment['request_id']}",
            one.uri.rpartition("/")[2],
            str(one.manifest.experiment["state"]),
            str(one.manifest.experiment.get("reason") or ""),
            one.manifest.sealed_at[:19],
            str(len(one.manifest.files)),
            str(sum(entry.size for entry in one.manifest.files)),
        )
        for one in found
    ]
    table("", heads, rows)


@capsule.command(epilog="\b\nExamples:\n  temporal-fabric capsule show last")
@click.argument("experiment")
@common
def show(shared: Context, experiment: str) -> None:
    """Show what is in a capsule: of EXPERIMENT (an id, tenant/id or last), a URI or a folder."""
    found = _find(shared.settings(), experiment)
    if shared.json:
        json_out(_summary(found) | {"files": [asdict(entry) for entry in found.manifest.files]})
        return
    result = found.result
    click.secho(f"{result['state']}  ", bold=True, nl=False)
    click.echo(f"{result['tenant']}/{result['request_id']}  {result.get('message') or ''}".rstrip())
    click.echo(f"  {result['started_at']} .. {result['ended_at']}  {found.where}")
    rows = [(entry.path, str(entry.size), entry.sha256[:16]) for entry in found.manifest.files]
    table("", ("file", "bytes", "sha256"), rows)


@capsule.command(epilog="\b\nExamples:\n  temporal-fabric capsule verify last")
@click.argument("experiment")
@common
def verify(shared: Context, experiment: str) -> None:
    """Hash every file of a capsule again; exit code 1 where one is missing or differs."""
    found = _find(shared.settings(), experiment)
    wrong = found.verify()
    if shared.json:
        json_out({"capsule": found.uri, "ok": not wrong, "problems": wrong})
    else:
        for problem in wrong:
            say(problem, colour="red")
        click.echo(f"{len(found.manifest.files)} files, {len(wrong)} problems")
    if wrong:
        raise click.exceptions.Exit(EXIT_DIFFERS)


@capsule.command(
    epilog="""
\b
Examples:
  temporal-fabric capsule query "FROM telemetry WHERE name = 'loss'" last
  temporal-fabric capsule query "SELECT request_id, min(value) FROM telemetry GROUP BY ALL"
"""
)
@click.argument("sql")
@click.argument("experiment", required=False)
@common
def query(shared: Context, sql: str, experiment: str | None) -> None:
    """Run SQL in DuckDB over the capsule of EXPERIMENT, or over all of the store.

    The views are telemetry, events and results; all have the columns tenant and request_id.
    """
    from temporal_fabric.capsule.queries import query as ask  # noqa: PLC0415

    settings = shared.settings()
    capsules = [_find(settings, experiment)] if experiment else _all(settings)
    if not capsules:
        raise CapsuleError("there is no capsule yet; 'temporal-fabric submit' makes one")
    columns, rows = ask(capsules, sql)
    if shared.json:
        json_out([dict(zip(columns, row, strict=True)) for row in rows])
        return
    table("", columns, [["" if cell is None else str(cell) for cell in row] for row in rows])


@capsule.command(
    epilog="""
\b
Examples:
  temporal-fabric capsule report last --open
  temporal-fabric capsule report train-7 --to train-7.html
"""
)
@click.argument("experiment")
@click.option("--to", type=click.Path(path_type=Path), help="The file; ID.html here by default.")
@click.option("--open", "shown", is_flag=True, help="Show it in the browser, too.")
@common
def report(shared: Context, experiment: str, to: Path | None, *, shown: bool) -> None:
    """Write a page about the run of EXPERIMENT: one HTML file, to look at, send and print.

    It holds all that it shows: nothing is loaded from elsewhere, and nothing in it runs.
    """
    found = _find(shared.settings(), experiment)
    target = (to or Path(f"{found.manifest.experiment['request_id']}.html")).absolute()
    page = _page(found)
    try:
        durable.replace(target, page.encode())
    except OSError as exc:
        raise CapsuleError(f"cannot write {target}: {exc.strerror}") from exc
    if shared.json:
        json_out({"capsule": found.uri, "report": str(target)})
    else:
        click.echo(str(target))
    if shown and click.launch(target.as_uri()):
        say("no browser could be started", colour="yellow")


@capsule.command(
    epilog="""
\b
Examples:
  temporal-fabric capsule diff train-7 train-8
  temporal-fabric capsule diff train-7 last -o json
"""
)
@click.argument("first")
@click.argument("second")
@common
def diff(shared: Context, first: str, second: str) -> None:
    """Show what differs between two capsules: request, result, outputs and logs.

    FIRST and SECOND are experiments (an id, tenant/id or last), URIs or folders. The exit code
    is 1 where something differs, and 0 where nothing does.
    """
    from temporal_fabric.capsule.differing import differences  # noqa: PLC0415

    settings = shared.settings()
    found = differences(_find(settings, first), _find(settings, second))
    if shared.json:
        json_out([asdict(one) for one in found])
    elif found:
        rows = [(one.what, one.path, _cell(one.first), _cell(one.second)) for one in found]
        table("", ("what", "where", first, second), rows)
    else:
        click.echo("the same request, result, outputs and logs")
    if found:
        raise click.exceptions.Exit(EXIT_DIFFERS)


def _cell(value: object) -> str:
    return "-" if value is None else str(value)


def _page(found: Capsule) -> str:
    """Return the report that fits what ran."""
    from temporal_fabric.capsule.report import report as of_an_experiment  # noqa: PLC0415
    from temporal_fabric.flows.report import is_flow  # noqa: PLC0415
    from temporal_fabric.flows.report import report as of_a_flow  # noqa: PLC0415

    return of_a_flow(found) if is_flow(found) else of_an_experiment(found)


def _summary(found: Capsule) -> dict[str, Any]:
    fields = ("tenant", "request_id", "epoch", "state", "reason", "message", "backend")
    return {name: found.manifest.experiment.get(name) for name in fields} | {
        "capsule": found.uri,
        "sealed_at": found.manifest.sealed_at,
        "bytes": sum(entry.size for entry in found.manifest.files),
    }


def _all(settings: Settings) -> list[Capsule]:
    """Return every sealed capsule of the store, newest first."""
    from temporal_fabric.capsule.finding import find_capsules  # noqa: PLC0415

    return find_capsules(settings.store)


def _find(settings: Settings, wanted: str) -> Capsule:
    """Return the newest capsule of an experiment, or the one behind a URI or a folder."""
    from temporal_fabric.capsule.finding import find_capsules  # noqa: PLC0415
    from temporal_fabric.capsule.reading import Capsule  # noqa: PLC0415

    if "://" in wanted or Path(wanted, "manifest.toml").is_file():
        return Capsule.open(wanted if "://" in wanted else Path(wanted).absolute())
    if wanted == "last" and (found := _all(settings)):
        return found[0]
    return find_capsules(settings.store, wanted)[0]
