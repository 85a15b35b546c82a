"""``exec``: a command beside a live payload."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict

import click

from temporal_fabric.cli.context import Context, common, run
from temporal_fabric.cli.output import json_out
from temporal_fabric.console import say

_NOT_STARTED = 127
_SIGNALLED = 128


@click.command(
    "exec",
    context_settings={"ignore_unknown_options": True},
    epilog="\b\nExamples:\n  temporal-fabric exec last -- nvidia-smi\n"
    "  temporal-fabric exec last -- sh -c 'ls -l $FABRIC_OUTPUT_DIR'",
)
@click.argument("experiment")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@common
def execute(shared: Context, experiment: str, command: tuple[str, ...]) -> None:
    """Run COMMAND beside the running payload of EXPERIMENT; leave with its exit code.

    It runs where the payload does, as the payload does: same sandbox and limits, same folder,
    same variables but its secrets, which are hidden in the output as well. It has no terminal
    and an empty standard input. Ctrl-C ends it, and so does the end of the attempt. A command
    killed by a signal gives 128 and the signal's number.
    """
    streams = {"stdout": sys.stdout.fileno(), "stderr": sys.stderr.fileno()}
    kept = dict.fromkeys(streams, b"")

    def write(stream: str, data: bytes) -> None:
        if shared.json:
            kept[stream] += data
            return
        while data:
            data = data[os.write(streams[stream], data) :]

    async def work() -> int:
        async with shared.fabric() as fabric:
            end = await (await fabric.find(experiment)).execute(*command, write=write)
        if shared.json:
            texts = {name: data.decode(errors="replace") for name, data in kept.items()}
            json_out(asdict(end) | texts)
        if end.error:
            say(f"the command did not start: {end.error}")
            return _NOT_STARTED
        return _SIGNALLED + end.signal if end.signal else end.exit_code or 0

    run(work())
