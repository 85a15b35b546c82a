"""What a certified flow came to, for a person: verdict, result, certificates, bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from temporal_fabric.console import table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_COLOURS = {"GREEN": "green", "AMBER": "yellow", "RED": "red"}


def flow_out(attempts: Sequence[Mapping[str, Any]]) -> None:
    """Print the outcome of the last attempt that was a certified flow, if there was one."""
    found = [one["flow"] for one in attempts if one.get("flow")]
    if not found:
        return
    flow = found[-1]
    rows = [
        (
            str(one["stage"]),
            str(one["name"]),
            _figure(one["value"]),
            "" if one["bound"] is None else f"{one['relation']} {_figure(one['bound'])}",
            str(one["kind"]),
            str(one["verdict"]),
        )
        for one in flow["certificates"]
    ]
    table("", ("stage", "certificate", "value", "bound", "kind", "verdict"), rows)
    verdict = str(flow["verdict"])
    click.secho(verdict, fg=_COLOURS.get(verdict.partition("(")[0]), bold=True, nl=False)
    energy = "" if flow["energy"] is None else f"  E {flow['energy']:.10g}"
    state = f"  state sha256:{flow['sha256'][:16]}" if flow["sha256"] else ""
    click.echo(f"  iteration {flow['iteration']}{energy}{state}")


def _figure(value: float | str | None) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
