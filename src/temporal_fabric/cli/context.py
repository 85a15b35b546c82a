"""What every command shares: options, connection, and how errors become exit codes."""

from __future__ import annotations

import asyncio
import functools
import getpass
import os
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from temporal_fabric.errors import (
    ExperimentNotFinished,
    ExperimentNotFound,
    FabricError,
    HostLockHeld,
    MetricsRefused,
    RequestRejected,
    ServerUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

    from temporal_fabric.client import Fabric
    from temporal_fabric.config import Settings

EXIT_REFUSED = 2
EXIT_NO_SERVER = 69
EXIT_BUSY = 75
EXIT_FAILED = 100
EXIT_NOT_FINISHED = 101
EXIT_NOT_FOUND = 102
EXIT_CANCELED = 103

_EXITS: tuple[tuple[type[FabricError], int], ...] = (
    (RequestRejected, EXIT_REFUSED),
    (ServerUnavailable, EXIT_NO_SERVER),
    (HostLockHeld, EXIT_BUSY),
    (MetricsRefused, EXIT_REFUSED),
    (ExperimentNotFound, EXIT_NOT_FOUND),
    (ExperimentNotFinished, EXIT_NOT_FINISHED),
)


def person() -> str:
    """Return who sits at this terminal, as user@host."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def exit_code(error: FabricError) -> int:
    """Return the exit code of an error; 1 where it has none of its own."""
    return next((code for kind, code in _EXITS if isinstance(error, kind)), 1)


@dataclass(slots=True)
class Context:
    """The options that any command takes, before or after its name."""

    output: str = "text"
    home: str | None = None
    address: str | None = None
    namespace: str | None = None
    log_format: str | None = None

    @property
    def json(self) -> bool:
        """Whether stdout must be JSON."""
        return self.output in {"json", "jsonl"}

    def settings(self) -> Settings:
        """Return the resolved settings."""
        from temporal_fabric.config import Settings  # noqa: PLC0415

        return Settings.load(home=self.home)

    @asynccontextmanager
    async def fabric(self) -> AsyncGenerator[Fabric]:
        """Yield a connected `Fabric`."""
        from temporal_fabric.client import Fabric  # noqa: PLC0415
        from temporal_fabric.connection import asking, connect  # noqa: PLC0415
        from temporal_fabric.observability.submission import flush  # noqa: PLC0415

        settings = self.settings()
        client = await connect(settings, address=self.address, namespace=self.namespace, quiet=True)
        try:
            with asking():
                yield Fabric(client, settings)
        finally:
            flush(settings.tracing)


def common(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the shared options and the `Context` as its first argument."""

    @click.option("-o", "--output", type=click.Choice(["text", "json", "jsonl"]), default=None)
    @click.option("--home", default=None, help="Folder of state, instead of FABRIC_HOME.")
    @click.option("--address", default=None, help="Temporal server, as host:port.")
    @click.option("--namespace", default=None, help="Temporal namespace.")
    @click.pass_context
    @functools.wraps(command)
    def wrapped(click_context: click.Context, /, *args: Any, **options: Any) -> Any:
        shared = click_context.ensure_object(Context)
        for name in ("output", "home", "address", "namespace"):
            value = options.pop(name)
            if value is not None:
                setattr(shared, name, value)
        if shared.home:
            os.environ["FABRIC_HOME"] = shared.home
        return command(shared, *args, **options)

    return wrapped


def run(work: Coroutine[Any, Any, int | None]) -> None:
    """Run a command's coroutine and leave with its exit code."""
    code = asyncio.run(work)
    if code:
        raise click.exceptions.Exit(code)
