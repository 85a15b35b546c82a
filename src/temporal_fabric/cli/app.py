"""The command ``temporal-fabric``, also reached as ``temporal fabric``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from temporal_fabric import __version__
from temporal_fabric.cli.backends import backends, drain, halt, undrain
from temporal_fabric.cli.capsule import capsule
from temporal_fabric.cli.context import Context, exit_code
from temporal_fabric.cli.end import cancel, get, result, retry, wait
from temporal_fabric.cli.env import env
from temporal_fabric.cli.execute import execute
from temporal_fabric.cli.explain_code import explain_code
from temporal_fabric.cli.flow import flow
from temporal_fabric.cli.look import events, explain, list_, logs, status
from temporal_fabric.cli.output import error_out
from temporal_fabric.cli.request import init, plan, schema, validate
from temporal_fabric.cli.schedule import schedule
from temporal_fabric.cli.server import demo, dev, doctor, worker
from temporal_fabric.cli.steer import pause, reprioritise, resolve, resume
from temporal_fabric.cli.submit import clone, submit
from temporal_fabric.errors import FabricError

if TYPE_CHECKING:
    from collections.abc import Sequence

_EXAMPLES = """
\b
Examples:
  temporal-fabric dev                          # server and worker, in one terminal
  temporal-fabric submit --follow request.yaml # in another
  temporal-fabric submit -- python train.py --epochs 10
  temporal-fabric list
  temporal-fabric logs -f last

\b
Exit codes: 0 fine; 2 refused or usage; 69 no server; while waiting: 0 succeeded,
100 failed, 101 not finished, 102 not found, 103 cancelled.
"""


# `temporal` moves its root flags in front of an extension's arguments, wherever they were
# typed; those without a meaning here are accepted and ignored.
@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_EXAMPLES,
    no_args_is_help=True,
)
@click.version_option(__version__, message="temporal-fabric %(version)s")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json", "jsonl", "none"]),
    default=None,
    help="Format of standard output.",
)
@click.option("--home", default=None, help="Folder of state, instead of FABRIC_HOME.")
@click.option("--profile", hidden=True)
@click.option("--config-file", hidden=True)
@click.option("--env", hidden=True)
@click.option("--env-file", hidden=True)
@click.option("--color", hidden=True)
@click.option("--time-format", hidden=True)
@click.option("--log-level", hidden=True)
@click.option("--log-format", hidden=True)
@click.option("--command-timeout", hidden=True)
@click.option("--client-connect-timeout", hidden=True)
@click.option("--no-json-shorthand-payloads", is_flag=True, hidden=True)
@click.option("--disable-config-file", is_flag=True, hidden=True)
@click.option("--disable-config-env", is_flag=True, hidden=True)
@click.pass_context
def cli(
    context: click.Context,
    /,
    *,
    output: str | None,
    home: str | None,
    profile: str | None,
    config_file: str | None,
    color: str | None,
    log_format: str | None,
    **_ignored: object,
) -> None:
    """Durable experiments on whatever is there, carried by Temporal."""
    shared = context.ensure_object(Context)
    shared.output = output or shared.output
    shared.log_format = log_format
    if home:
        shared.home = os.environ["FABRIC_HOME"] = home
    for name, value in (("TEMPORAL_PROFILE", profile), ("TEMPORAL_CONFIG_FILE", config_file)):
        if value:
            os.environ[name] = value
    if color == "never" or os.environ.get("NO_COLOR"):
        context.color = False


for _command in (
    init,
    validate,
    plan,
    submit,
    clone,
    retry,
    status,
    explain,
    list_,
    logs,
    events,
    execute,
    get,
    wait,
    result,
    cancel,
    pause,
    resume,
    reprioritise,
    resolve,
    backends,
    drain,
    undrain,
    halt,
    capsule,
    env,
    flow,
    schedule,
    schema,
    explain_code,
    dev,
    worker,
    doctor,
    demo,
):
    cli.add_command(_command)


def main(args: Sequence[str] | None = None, *, hard_exit: bool = True) -> None:
    """Run the command line and leave with its exit code.

    Args:
        args: The arguments; the process's own by default.
        hard_exit: False leaves by SystemExit even after Temporal's client was loaded, for a
            caller that goes on.
    """
    code = _run(list(sys.argv[1:] if args is None else args))
    sys.stdout.flush()
    sys.stderr.flush()
    if hard_exit and "temporalio" in sys.modules:
        # Every worker and client is closed by now, but a native thread that just lost its
        # server can still abort the interpreter's own finalisation with 134 or 139, and
        # that would be this command's exit code.
        os._exit(code)
    raise SystemExit(code)


def _run(args: list[str]) -> int:
    shared = Context()
    try:
        code = cli.main(args, prog_name="temporal-fabric", standalone_mode=False, obj=shared)
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return 130
    except BrokenPipeError:
        # The reader went away, as `head` does; nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except FabricError as exc:
        error_out(exc, as_json=shared.json)
        return exit_code(exc)
    return code if isinstance(code, int) else 0
