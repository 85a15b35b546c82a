"""Running installers: under a guard, in an environment of their own, every line kept."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import deque
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from temporal_fabric.errors import EnvironmentFailed
from temporal_fabric.requests.uris import mask_credentials

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

_GUARD = Path(__file__).with_name("guard.py")
_CHUNK = 64 * 1024
_TAIL_LINES = 20
_KEPT_LINES = 2000
_PASSED_ON = (
    *("HOME", "PATH", "LANG", "LC_ALL", "TMPDIR", "USER", "TZ", "NETRC"),
    *("CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS", "CUDA_HOME"),
)
_PASSED_ON_BY_PREFIX = ("UV_", "XDG_", "SSL_CERT_")
"""Packages run their own code while they are built: it gets the installer's settings, no more."""


@dataclass(frozen=True, slots=True)
class Commands:
    """Runs the commands that make one environment.

    Args:
        lock: Descriptor of the lock. Every command inherits it, and so the lock lasts as long
            as any of them.
        log: Takes each line of a command.
        say: Takes what is being done, for people who wait.
    """

    lock: int
    log: Callable[[str], None]
    say: Callable[[str], None]

    async def run(
        self,
        what: str,
        *command: str,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        each: Callable[[str], None] | None = None,
    ) -> list[str]:
        """Run a command to its end; it ends with this process, and when this is cancelled.

        Args:
            what: Names the command in an error.
            command: Program and arguments.
            cwd: Current folder of the command.
            env: Variables beside those that every installer gets.
            each: Takes each line instead of the log.

        Returns:
            The last lines it wrote.

        Raises:
            EnvironmentFailed: its exit code was not 0.
        """
        said: deque[str] = deque(maxlen=_KEPT_LINES)
        async with self._guarded(command, cwd, env or {}) as process:
            async for line in _lines(process.stdout):
                said.append(line)
                (each or self.log)(line)
            code = await process.wait()
        if code:
            raise EnvironmentFailed(
                f"the environment could not be built: {what!r} ended with {code}",
                tail="\n".join(list(said)[-_TAIL_LINES:]),
            )
        return list(said)

    @asynccontextmanager
    async def _guarded(
        self, command: Sequence[str], cwd: Path, env: Mapping[str, str]
    ) -> AsyncGenerator[Process]:
        """Yield a command that runs; nothing of it does afterwards."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(_GUARD), *command),
            cwd=cwd,
            env=_variables() | dict(env),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(self.lock,),
        )
        try:
            yield process
        finally:
            # Its helpers too: what still holds the lock would make every other attempt wait.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await asyncio.shield(process.wait())


async def _lines(stream: asyncio.StreamReader | None) -> AsyncGenerator[str]:
    rest = b""
    while stream is not None and (chunk := await stream.read(_CHUNK)):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield mask_credentials(line.decode(errors="replace").rstrip())
    if rest:
        yield mask_credentials(rest.decode(errors="replace").rstrip())


def _variables() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED_ON
        or name.startswith(_PASSED_ON_BY_PREFIX)
        or name.lower().endswith("_proxy")
    }
