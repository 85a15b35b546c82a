"""Printing: text for people, stable JSON for programs."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

import click

from temporal_fabric.cli.certificates import flow_out
from temporal_fabric.console import COLOURS
from temporal_fabric.errors import ExperimentFailed, FabricError, RequestRejected
from temporal_fabric.verdicts import waits_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from temporal_fabric.outcomes import ExperimentResult
    from temporal_fabric.status import ExperimentStatus

_BAR = 20
_MARGIN = " " * 12
_WAITS = ("reason", "waits_for", "ahead", "drained")
_TOLD = ("progress", "eta_s", "stage", "step", "metrics", *_WAITS)


def json_out(value: Any) -> None:
    """Print one JSON value on standard output."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    click.echo(json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True, default=str))


def error_out(error: FabricError, *, as_json: bool) -> None:
    """Print an error: text on standard error, and JSON on standard output where asked for."""
    if as_json:
        problems = error.problems if isinstance(error, RequestRejected) else ()
        json_out(
            {
                "error": type(error).__name__,
                "message": str(error),
                "problems": [problem.as_dict() for problem in problems],
            }
        )
        return
    click.secho("error: ", fg="red", bold=True, nl=False, err=True)
    click.echo(str(error), err=True)
    token = error.code if isinstance(error, RequestRejected) else ""
    token = error.reason or "" if isinstance(error, ExperimentFailed) else token
    if token:
        click.secho(f"next: temporal-fabric explain-code {token}", dim=True, err=True)


def live_line(live: Mapping[str, Any]) -> str:
    """Return a heartbeat in one line: progress and metrics first, then the rest."""
    told = progress_line(live)
    rest = {k: v for k, v in live.items() if k not in {*_TOLD, "cursor"}}
    plain = " ".join(f"{key}={value}" for key, value in rest.items())
    return f"{told}  {plain}" if told else plain


def progress_line(live: Mapping[str, Any]) -> str:
    """Return what it waits for, or what the payload told: progress, time left, metrics."""
    parts = [waiting] if (waiting := waits_for(live)) else []
    if "progress" in live:
        done = round(live["progress"] * _BAR)
        parts.append(f"[{'#' * done}{'.' * (_BAR - done)}] {live['progress']:.0%}")
    if live.get("eta_s"):
        parts.append(f"{live['eta_s']:.0f} s left")
    if live.get("stage"):
        parts.append(str(live["stage"]))
    if "step" in live:
        parts.append(f"step {live['step']}")
    for name, value in live.get("metrics", {}).items():
        parts.append(f"{name} {value:.5g}" if isinstance(value, float) else f"{name} {value}")
    return "  ".join(parts)


def status_out(status: ExperimentStatus) -> None:
    """Print where an experiment stands."""
    click.echo(f"{status.tenant}/{status.request_id}  ", nl=False)
    click.secho(status.state, fg=COLOURS.get(status.state), bold=True, nl=False)
    click.echo(f"  {status.reason}" if status.reason else "")
    rows = [
        ("since", status.since),
        ("submitted", status.submitted),
        ("ended", status.ended),
        ("message", status.message),
        ("backend", f"{status.backend} (epoch {status.epoch})" if status.backend else ""),
        ("asks for", ", ".join(status.changes)),
        ("process", status.native_id),
        ("exit code", "" if status.exit_code is None else str(status.exit_code)),
        ("capsule", status.capsule),
        ("workflow", f"{status.workflow_id} ({status.temporal_status})"),
        ("live", live_line(status.live) if status.state != "QUEUED" else ""),
        ("read from", ", ".join(status.sources)),
    ]
    for name, value in rows:
        if value:
            click.secho(f"  {name:<10}", dim=True, nl=False)
            click.echo(value)
    if status.question:
        _question_out(status.request_id, status.question)
    for word in status.resolutions:
        click.secho("  answered  ", dim=True, nl=False)
        click.echo(_answered(word))
    for done in status.compensations:
        click.secho("  rollback  ", dim=True, nl=False)
        click.echo(_undone(done))
    for attempt in status.attempts if len(status.attempts) > 1 else ():
        click.secho("  attempt   ", dim=True, nl=False)
        asked = f"  ({', '.join(attempt['changes'])})" if attempt.get("changes") else ""
        ended = f"{attempt['reason'] or 'ok'}  {attempt.get('message', '')}".rstrip()
        click.echo(f"epoch {attempt['epoch']} on {attempt['backend']}: {ended}{asked}")
    flow_out(status.attempts)
    for text in status.pending:
        click.secho(f"  pending   {text}", dim=True)
    for moment in status.timeline:
        click.echo(f"  {moment['at']}  {moment['state']:<11}{moment.get('reason', '')}".rstrip())


def _question_out(request_id: str, question: Mapping[str, Any]) -> None:
    click.secho("  asks      ", fg=COLOURS["HELD"], nl=False)
    click.echo(_hanging(question["text"], _MARGIN))
    for choice in question["choices"]:
        click.echo(f"{_MARGIN}temporal-fabric resolve {request_id} --as {choice['answer']}")
        click.echo(f"{_MARGIN}  {_hanging(choice['follows'], f'{_MARGIN}  ')}")


def _hanging(text: str, margin: str) -> str:
    """Return a text that keeps to its column on a terminal; programs get it as it is."""
    if not sys.stdout.isatty():
        return text
    width = shutil.get_terminal_size().columns - len(margin)
    return click.wrap_text(text, max(width, 40)).replace("\n", f"\n{margin}")


def _answered(word: Mapping[str, Any]) -> str:
    note = f" ({word['note']})" if word["note"] else ""
    return f"{word['at']}  {word['answer']} for epoch {word['epoch']}, says {word['by']}{note}"


def _undone(done: Mapping[str, Any]) -> str:
    tries = ", ".join(ended["reason"] or "ok" for ended in done["attempts"])
    return f"{done['name']}: {'done' if done['ok'] else 'FAILED'} ({tries or 'not run'})"


def result_out(result: ExperimentResult) -> None:
    """Print the result of an experiment that ended."""
    click.secho(result.state, fg=COLOURS.get(result.state), bold=True, nl=False)
    click.echo(f"  {result.tenant}/{result.request_id}  {result.started_at} .. {result.ended_at}")
    if result.reason:
        click.echo(f"  reason   {result.reason}: {result.message}")
    flow_out([asdict(attempt) for attempt in result.attempts])
    for word in result.resolutions:
        click.echo(f"  answered {_answered(asdict(word))}")
    for done in result.compensations:
        click.echo(f"  rollback {_undone(asdict(done))}")
    for output in result.outputs:
        click.echo(f"  output   {output.path}  {output.size} bytes  sha256:{output.sha256[:16]}")
    click.echo(f"  capsule  {result.capsule}")
