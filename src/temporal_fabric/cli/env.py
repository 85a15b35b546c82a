"""``env ls|gc``: the environments that payloads of this host run in, without a server."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from temporal_fabric.cli.context import Context, common
from temporal_fabric.cli.output import json_out
from temporal_fabric.console import table
from temporal_fabric.units import size_text

if TYPE_CHECKING:
    from temporal_fabric.environments.cache import Cached


@click.group(name="env")
def env() -> None:
    """Look at the environments built on this host, and remove unused ones."""


@env.command(
    name="ls", epilog="\b\nExamples:\n  temporal-fabric env ls\n  temporal-fabric env ls -o json"
)
@common
def ls(shared: Context) -> None:
    """List the environments of this host, the least recently used first."""
    from temporal_fabric.environments.cache import cached  # noqa: PLC0415

    settings = shared.settings()
    found = cached(settings.environments, settings.runs)
    if shared.json:
        json_out([asdict(one) for one in found])
        return
    _show(found)
    click.echo(f"{len(found)} environments, {size_text(sum(one.size for one in found))}")


@env.command(
    name="gc",
    epilog="""
\b
Examples:
  temporal-fabric env gc --dry-run
  temporal-fabric env gc --older-than 30d
""",
)
@click.option("--older-than", default=None, help="Only those last used so long ago: 12h, 30d.")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@common
def gc(shared: Context, older_than: str | None, *, dry_run: bool) -> None:
    """Remove environments that no experiment on this host uses; they are built again on demand.

    One that is being built, or that an experiment has whose capsule is not sealed, stays.
    """
    from temporal_fabric.environments.cache import remove_unused  # noqa: PLC0415

    age_s = _seconds(older_than) if older_than else 0.0
    settings = shared.settings()
    gone = remove_unused(settings.environments, settings.runs, older_than_s=age_s, dry_run=dry_run)
    size = sum(one.size for one in gone)
    if shared.json:
        json_out({"dry_run": dry_run, "bytes": size, "removed": [asdict(one) for one in gone]})
        return
    if gone:
        _show(gone)
    done = "would be removed" if dry_run else "removed"
    click.echo(f"{len(gone)} environments, {size_text(size)} {done}")


def _show(found: list[Cached]) -> None:
    rows = [
        (
            one.digest[:12],
            one.state,
            size_text(one.size),
            str(one.packages),
            one.last_used[:19],
            ", ".join(one.used_by),
            one.made_of,
        )
        for one in found
    ]
    heads = ("digest", "state", "size", "packages", "last used", "used by", "made of")
    table("", heads, rows)


def _seconds(text: str) -> float:
    from temporal_fabric.requests.quantities import duration_seconds  # noqa: PLC0415

    seconds = duration_seconds(text)
    if seconds is None:
        raise click.BadParameter(f"{text!r} is no duration; write 90m, 12h or 30d")
    return seconds
