"""``explain-code``: the long answer to an error code or a reason token, without a server."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from temporal_fabric.cli.context import Context, common
from temporal_fabric.cli.output import json_out
from temporal_fabric.console import table

if TYPE_CHECKING:
    from temporal_fabric.glossary import Entry


@click.command(
    "explain-code",
    epilog="""
\b
Examples:
  temporal-fabric explain-code              # every code and reason
  temporal-fabric explain-code E_RANGE      # a refused request
  temporal-fabric explain-code OOM          # a failed or waiting experiment
""",
)
@click.argument("token", metavar="[CODE]", required=False)
@common
def explain_code(shared: Context, token: str | None) -> None:
    """Explain an error CODE or a reason: what it means, an example, and what to do."""
    from temporal_fabric import glossary  # noqa: PLC0415 - the tables are long

    if token is None:
        if shared.json:
            json_out(glossary.known())
        else:
            table("", ("code", "meaning"), list(glossary.known().items()))
        return
    try:
        found = glossary.look_up(token.upper())
    except KeyError:
        near = glossary.nearest(token)
        more = f"; did you mean {near}?" if near else ""
        raise click.UsageError(
            f"no such code or reason: {token}{more} 'temporal-fabric explain-code' lists all"
        ) from None
    if shared.json:
        json_out(asdict(found))
    else:
        _out(found)


def _out(found: Entry) -> None:
    click.secho(found.token, bold=True, nl=False)
    click.echo(f": {found.title}")
    for name, text in found.parts.items():
        click.secho(f"\n{name}", dim=True)
        click.echo(click.wrap_text(text, 88, "  ", "  "))
    if found.example:
        click.secho(f"\nExample: {found.example.file}", dim=True)
        click.echo(_indented(found.example.text))
        click.secho(f"$ temporal-fabric validate {found.example.file}", dim=True)
        click.echo(_indented(found.example.answer))


def _indented(text: str) -> str:
    return "".join(f"  {line}" for line in text.splitlines(keepends=True))
