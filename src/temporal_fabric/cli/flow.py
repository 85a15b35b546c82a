"""``flow lint|certify|run|resume``: certified flows in this process, without a server."""

from __future__ import annotations

import signal
import sys
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from temporal_fabric.cli.context import EXIT_CANCELED, EXIT_FAILED, Context, common
from temporal_fabric.cli.output import json_out
from temporal_fabric.console import say

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from rich.console import RenderableType

    from temporal_fabric.flows.certificates.decision import Decision
    from temporal_fabric.flows.compiling import Compiled
    from temporal_fabric.flows.controller_state import ControllerState
    from temporal_fabric.flows.running import RunResult, Watch
    from temporal_fabric.flows.spec import FlowSpec


class _Count(click.ParamType[Any]):
    """A number of devices, or all of them."""

    name = "count"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | Literal["all"]:
        """Return the number, or ``all``."""
        if value == "all":
            return "all"
        if not str(value).isdecimal() or int(value) < 1:
            self.fail(f"{value!r} is neither a number from 1 on nor `all`", param, ctx)
        return int(value)


_DEVICES = click.option(
    "--devices",
    type=_Count(),
    metavar="N|all",
    help="Cut the arrays over so many devices, whatever the specification says.",
)
_FILE = click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))


@click.group(name="flow")
def flow() -> None:
    """Minimise an energy, and know what the result is worth: lint, certify, run, resume."""


@flow.command(epilog="\b\nExamples:\n  temporal-fabric flow lint examples/deblur.yaml")
@_FILE
@common
def lint(shared: Context, file: Path) -> None:
    """Explain every problem of a specification, and say which profile it can be proved under."""
    from temporal_fabric.flows.certificates.decision import propose  # noqa: PLC0415
    from temporal_fabric.flows.certificates.profiles import Scheme  # noqa: PLC0415
    from temporal_fabric.flows.judging import before  # noqa: PLC0415

    spec, compiled = _compiled(file)
    say("reading is done; looking which profile can be proved")
    _, findings = before(compiled)
    proposed = propose(findings, Scheme(spec.flow.family))
    name = proposed.profile if proposed else None
    chosen = spec.certification.profile
    if shared.json:
        answer = {"ok": True, "name": spec.name, "profile": chosen, "provable": name}
        json_out(answer | {"terms": len(spec.terms), "family": spec.flow.family})
        return
    click.echo(f"{file}: no problems ({len(spec.terms)} terms, {spec.flow.family}, {spec.dtype})")
    provable = name or "none; `flow certify` says what is missing"
    click.echo(f"profile chosen: {chosen}; strongest that can be proved: {provable}")


@flow.command(epilog="\b\nExamples:\n  temporal-fabric flow certify examples/deblur.yaml")
@_FILE
@common
def certify(shared: Context, file: Path) -> None:
    """Show every certificate against its bound, before anything is run.

    Exits with 100 where the gate of the chosen profile stays closed.
    """
    from temporal_fabric.flows.judging import before  # noqa: PLC0415

    _, compiled = _compiled(file)
    decision, _ = before(compiled)
    if shared.json:
        json_out(decision.as_json())
    else:
        _show(_table(decision))
    if decision.colour.value != "GREEN":
        raise click.exceptions.Exit(EXIT_FAILED)


@flow.command(
    epilog="""
\b
Examples:
  temporal-fabric flow run examples/deblur.yaml
  temporal-fabric flow run examples/deblur.yaml --out runs/first
"""
)
@_FILE
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the capsule.")
@click.option("--redact-artifacts", is_flag=True, help="Keep statistics of the result only.")
@click.option("--deterministic", is_flag=True, help="Only operations of a fixed order.")
@_DEVICES
@common
def run(
    shared: Context,
    file: Path,
    out: Path | None,
    devices: int | Literal["all"] | None,
    *,
    redact_artifacts: bool,
    deterministic: bool,
) -> None:
    """Certify a flow, run it under its certificates, and leave a capsule.

    Exits with 100 where a certificate fails, at the start, on the way or at the end. Ctrl-C stops
    at the end of the chunk under way, with a checkpoint.
    """
    from temporal_fabric.flows.running import run_certified  # noqa: PLC0415

    changes: dict[str, Any] = {"deterministic": True} if deterministic else {}
    changes |= {} if devices is None else {"devices": devices}
    spec, compiled = _compiled(file, changes)
    with _watching(shared, spec.name) as watch:
        result = run_certified(
            spec,
            compiled,
            folder=file.parent,
            out=out,
            redact_artifacts=redact_artifacts,
            watch=watch,
        )
    _ended(shared, result)


@flow.command(
    epilog="""
\b
Examples:
  temporal-fabric flow resume runs/first
  temporal-fabric flow resume CAPSULE --out runs/second
"""
)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Folder to go on in.")
@_DEVICES
@common
def resume(
    shared: Context, folder: Path, out: Path | None, devices: int | Literal["all"] | None
) -> None:
    """Go on with a run that was interrupted, from its last good checkpoint, bit for bit.

    FOLDER is that of a run, or the capsule of an experiment that was cancelled or out of time;
    a capsule stays as it is, so it needs --out.
    """
    from temporal_fabric.flows.running import resume_certified  # noqa: PLC0415

    with _watching(shared, folder.name) as watch:
        result = resume_certified(folder, out=out, devices=devices, watch=watch)
    _ended(shared, result)


def _compiled(file: Path, changes: Mapping[str, Any] | None = None) -> tuple[FlowSpec, Compiled]:
    from temporal_fabric.flows.reading import read_spec, read_spec_file  # noqa: PLC0415

    spec = read_spec_file(file)
    if changes:
        spec = read_spec(spec.model_copy(update=changes))
    # The specification is read before JAX is loaded: its problems are shown at once.
    from temporal_fabric.flows.chosen import check_profile  # noqa: PLC0415
    from temporal_fabric.flows.compiling import compile_flow  # noqa: PLC0415

    check_profile(spec)
    compiled = compile_flow(spec, file.parent)
    if spec.certification.refinement_test:
        from temporal_fabric.flows.refining import check_mesh  # noqa: PLC0415

        check_mesh(spec, file.parent)
    return spec, compiled


@contextmanager
def _watching(shared: Context, name: str) -> Generator[Watch]:
    """Yield what shows a run, gauges on a terminal and a line a phase elsewhere."""
    from temporal_fabric.flows.running import Watch  # noqa: PLC0415

    with _stoppable() as wants_stop:
        if shared.json or not sys.stderr.isatty():
            yield Watch(_told(), wants_stop)
            return
        from rich.console import Console  # noqa: PLC0415
        from rich.live import Live  # noqa: PLC0415

        from temporal_fabric.cli.flow_gauges import FlowGauges  # noqa: PLC0415

        gauges = FlowGauges(name)
        with Live(gauges, console=Console(stderr=True), refresh_per_second=8):
            yield Watch(gauges.take, wants_stop)


def _told() -> Callable[[ControllerState, Mapping[str, list[Any]]], None]:
    last: list[str] = []

    def tell(state: ControllerState, rows: Mapping[str, list[Any]]) -> None:
        energy = rows["E"][-1] if rows else None
        at = "" if energy is None else f"  iteration {state.iteration}  E {energy:.8g}"
        line = f"{state.colour.value}  phase {state.phase}{at}"
        if last[-1:] != [line]:
            say(line)
            last[:] = [line]

    return tell


@contextmanager
def _stoppable() -> Generator[Callable[[], bool]]:
    """Yield whether Ctrl-C was pressed; the second one ends the process as usual."""
    pressed: list[bool] = []

    def press(_number: int, _frame: object) -> None:
        pressed.append(True)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)


def _ended(shared: Context, result: RunResult) -> None:
    if shared.json:
        plain = {
            name: value
            for name, value in asdict(result).items()
            if name not in {"state", "decisions"}
        }
        decisions = {stage: one.as_json() for stage, one in result.decisions.items()}
        json_out(plain | {"certificates": decisions})
    else:
        for stage in ("before", "exit"):
            if stage in result.decisions:
                _show(_table(result.decisions[stage]))
                click.echo()
        _say_result(result)
    codes = {"SUCCEEDED": 0, "CANCELED": EXIT_CANCELED}
    if code := codes.get(result.outcome.value, EXIT_FAILED):
        raise click.exceptions.Exit(code)


def _say_result(result: RunResult) -> None:
    colour = {"SUCCEEDED": "green", "CANCELED": "yellow"}.get(result.outcome.value, "red")
    click.secho(result.outcome.value, fg=colour, bold=True, nl=False)
    click.echo(f"  {result.verdict}" + (f"  {result.reason}" if result.reason else ""))
    energy = "" if result.energy is None else f"  E {result.energy:.10g}"
    click.echo(f"  iteration {result.iteration}{energy}")
    for slot, one in result.psnr.items():
        if result.iteration and {"start", "result"} <= set(one):
            click.echo(f"  PSNR      {one['start']:.2f} -> {one['result']:.2f} dB  ({slot})")
    if result.sha256:
        click.echo(f"  state     sha256:{result.sha256[:16]}")
    click.echo(f"  capsule   {result.folder}")
    if result.message and result.reason != "CERT_FAIL":
        click.echo(f"  {result.message}")


def _table(decision: Decision) -> RenderableType:
    from temporal_fabric.flows.certificates.table import certificate_table  # noqa: PLC0415

    return certificate_table(decision)


def _show(picture: RenderableType) -> None:
    from rich.console import Console  # noqa: PLC0415

    Console().print(picture)
