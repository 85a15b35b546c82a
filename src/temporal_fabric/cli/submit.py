"""``submit``: start an experiment from a file or a command."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from temporal_fabric.cli.certificates import flow_out
from temporal_fabric.cli.context import (
    EXIT_CANCELED,
    EXIT_FAILED,
    Context,
    common,
    run,
)
from temporal_fabric.cli.output import json_out, result_out
from temporal_fabric.cli.request import SET_OPTION, read_body, show_plan
from temporal_fabric.cli.watch import follow as follow_experiment
from temporal_fabric.console import say, slow_progress
from temporal_fabric.errors import ExperimentCanceled, ExperimentFailed

if TYPE_CHECKING:
    from temporal_fabric.client import Fabric
    from temporal_fabric.handle import ExperimentHandle


class _SubmitCommand(click.Command):
    """Keeps what stands after ``--`` apart: it is the experiment's command, not ours."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Split the arguments at the first ``--``."""
        if "--" in args:
            at = args.index("--")
            ctx.meta["command"], args = tuple(args[at + 1 :]), args[:at]
        return super().parse_args(ctx, args)


@click.command(
    cls=_SubmitCommand,
    epilog="""
\b
Examples:
  temporal-fabric submit request.yaml
  temporal-fabric submit --follow request.yaml --set retry.max_attempts=3
  temporal-fabric submit --dry-run request.yaml
  temporal-fabric submit --backend docker request.yaml
  temporal-fabric submit --name digits -- python fit.py --epochs 10
  temporal-fabric submit --workdir . -- python fit.py --epochs 10
  cat request.json | temporal-fabric submit -

Submitting the same body again returns the same experiment; another body under the same id
is refused with E_CONFLICT.
""",
)
@click.argument("file", required=False)
@click.option("-f", "--follow", is_flag=True, help="Stay, show states and output, exit as it ends.")
@click.option("--id", "request_id", default=None, help="Id of an experiment given as a command.")
@click.option("--name", default=None, help="Name of an experiment given as a command.")
@click.option(
    "--workdir",
    default=None,
    help="Folder that a command brings along and starts in, such as '.'; .gitignore is respected.",
)
@click.option(
    "--backend",
    "backends",
    multiple=True,
    metavar="NAME",
    help="Run there; may be given several times, in order. The same as /backends.",
)
@click.option("--dry-run", is_flag=True, help="Check and show where it would run, without effect.")
@SET_OPTION
@common
@click.pass_context
def submit(
    click_context: click.Context,
    shared: Context,
    file: str | None,
    request_id: str | None,
    name: str | None,
    *,
    workdir: str | None,
    backends: tuple[str, ...],
    settings: tuple[str, ...],
    follow: bool,
    dry_run: bool,
) -> None:
    """Start an experiment from FILE (YAML, JSON, - for stdin) or from -- CMD..."""
    command: tuple[str, ...] = click_context.meta.get("command", ())
    from temporal_fabric.overrides import apply_overrides  # noqa: PLC0415

    if bool(command) == bool(file):
        raise click.UsageError("give either a FILE or a command after --")
    if file and workdir:
        raise click.UsageError("--workdir is for a command; in a FILE, write 'workdir:'")
    if backends:
        settings = (*settings, f"backends={json.dumps(backends)}")
    if command:
        body = apply_overrides(_command_body(command, request_id, name, workdir), settings)
    else:
        body = read_body(str(file), settings)
    run(show_plan(shared, body) if dry_run else submit_body(shared, body, follow=follow))


def _command_body(
    command: tuple[str, ...], request_id: str | None, name: str | None, workdir: str | None
) -> Any:
    process: dict[str, Any] = {"command": list(command)}
    body: dict[str, Any] = {"payload": {"process": process}}
    if workdir is None:
        process["workdir"] = str(Path.cwd())
    else:
        body["workdir"] = workdir
    name = name or Path(command[0]).name
    fresh = "".join(char if char.isalnum() else "-" for char in name.lower()).strip("-")
    body["id"] = request_id or f"{fresh[:40] or 'run'}-{secrets.token_hex(3)}"
    return body | {"name": name}


async def submit_body(shared: Context, body: Any, *, follow: bool) -> int:
    """Submit a body; show it to the end where asked to; return the exit code."""
    async with shared.fabric() as fabric:
        handle = await fabric.submit(body, progress=slow_progress())
        if not follow:
            _submitted(shared, handle)
            return 0
        say(f"submitted {handle.tenant}/{handle.id}; Ctrl-C stops looking, not the experiment")
        return await follow_to_end(shared, fabric, handle)


def _submitted(shared: Context, handle: ExperimentHandle) -> None:
    if shared.json:
        json_out({"tenant": handle.tenant, "id": handle.id, "workflow_id": handle.workflow_id})
        return
    click.echo(f"submitted {handle.tenant}/{handle.id}")
    say(f"next: temporal-fabric logs -f {handle.id}")


async def follow_to_end(shared: Context, fabric: Fabric, handle: ExperimentHandle) -> int:
    """Show states on stderr and the payload's output on stdout; return the exit code."""
    await follow_experiment(fabric, handle, output=not shared.json)
    return await report_result(shared, handle)


async def report_result(shared: Context, handle: ExperimentHandle) -> int:
    """Wait for the end, print the result, return the exit code."""
    try:
        result = await handle.result()
    except ExperimentFailed as exc:
        if shared.json:
            json_out(exc.result)
        else:
            flow_out(exc.result.get("attempts", ()))
            say(f"error: {exc}", colour="red")
            if exc.stderr_excerpt:
                say(exc.stderr_excerpt)
            if exc.result.get("capsule"):
                say(f"capsule  {exc.result['capsule']}")
        return EXIT_CANCELED if isinstance(exc, ExperimentCanceled) else EXIT_FAILED
    if shared.json:
        json_out(result)
    else:
        result_out(result)
    return 0


@click.command(
    epilog="\b\nExamples:\n  temporal-fabric clone last --set payload.process.env.SEED=8 -f"
)
@click.argument("experiment")
@SET_OPTION
@click.option("--id", "request_id", default=None, help="Id of the copy; a fresh one by default.")
@click.option("-f", "--follow", is_flag=True, help="Stay, show states and output.")
@common
def clone(
    shared: Context,
    experiment: str,
    settings: tuple[str, ...],
    request_id: str | None,
    *,
    follow: bool,
) -> None:
    """Submit a copy of EXPERIMENT under a new id, with fields changed."""

    async def work() -> int:
        from temporal_fabric.overrides import apply_overrides  # noqa: PLC0415

        async with shared.fabric() as fabric:
            source = await fabric.find(experiment)
            body = await source.body()
        fresh = f"{source.id[:50]}-{secrets.token_hex(3)}"
        body = apply_overrides(body, settings) | {"id": request_id or fresh}
        return await submit_body(shared, body, follow=follow)

    run(work())
