"""Building one environment: under a lock, with the marker written last.

A virtual environment cannot be moved, so it is built where it stays, and only the marker makes
it whole: a folder without one is what a killed worker left, and is built again. The installer
inherits the lock, so an installer that outlives its worker is waited for, never joined.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import platform
import shutil
import signal
import sys
from collections import deque
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from temporal_fabric import durable
from temporal_fabric.errors import EnvironmentFailed
from temporal_fabric.requests.uris import mask_credentials

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from temporal_fabric.environments.recipe import Recipe

MARKER = "environment.txt"
_CHUNK = 64 * 1024
_TAIL_LINES = 20
_KEPT_LINES = 2000
_LOOK_S = 0.2
_PASSED_ON = (
    *("HOME", "PATH", "LANG", "LC_ALL", "TMPDIR", "USER", "TZ", "NETRC"),
    *("CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS", "CUDA_HOME"),
)
_PASSED_ON_BY_PREFIX = ("UV_", "XDG_", "SSL_CERT_")
"""Packages run their own code while they are built: it gets the installer's settings, no more."""


async def build(
    recipe: Recipe, folder: Path, log: Callable[[str], None], say: Callable[[str], None]
) -> bool:
    """Make sure that the environment stands in ``folder``.

    Args:
        recipe: What to install.
        folder: Where it will lie; its parent is made.
        log: Takes each line of the installer.
        say: Takes what is being done, for people who wait.

    Returns:
        Whether it was built now; False where it stood already.

    Raises:
        EnvironmentFailed: the installer failed; the message says at what, and `tail` has the
            end of what it wrote.
    """
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    async with _exclusive(folder.with_name(f"{folder.name}.lock"), say) as lock:
        if _whole(folder):
            return False
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        try:
            await _Build(recipe, folder, lock, log, say).run()
        except EnvironmentFailed:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            raise
    return True


def _whole(folder: Path) -> bool:
    # The interpreter is a link into the worker's installation, which an upgrade may have removed.
    return (folder / MARKER).is_file() and (folder / "bin" / "python").exists()


@asynccontextmanager
async def _exclusive(path: Path, say: Callable[[str], None]) -> AsyncGenerator[int]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                say("waiting for the same environment, which is being built")
                await asyncio.sleep(_LOOK_S)
        yield fd
    finally:
        os.close(fd)


class _Build:
    """One build, holding the lock."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        lock: int,
        log: Callable[[str], None],
        say: Callable[[str], None],
    ) -> None:
        self._recipe = recipe
        self._folder = folder
        self._lock = lock
        self._log = log
        self._say = say
        self._uv = _find_uv()

    async def run(self) -> None:
        """Make the folder, install, and mark it."""
        python = ["--python", str(self._folder / "bin" / "python")]
        wanted = self._folder / "requirements.txt"
        self._say("making a virtual environment")
        await self._call("venv", "--python", sys.executable, "--no-project", str(self._folder))
        await asyncio.to_thread(wanted.write_text, self._recipe.text)
        self._say("installing packages")
        options = ["--require-hashes"] if self._recipe.locked else []
        options += ["--refresh"] if self._recipe.local else []
        await self._call("pip", "install", *python, *options, "-r", str(wanted))
        installed = await self._call("pip", "freeze", *python, "--quiet")
        await asyncio.to_thread(self._mark, sorted(installed))

    def _mark(self, installed: list[str]) -> None:
        os.sync()  # the marker must never be on disk before what it vouches for
        head = [
            f"# environment {self._recipe.digest}",
            f"# python {platform.python_version()} {platform.machine()}",
        ]
        text = "".join(f"{line}\n" for line in [*head, *installed])
        durable.replace(self._folder / MARKER, text.encode())

    async def _call(self, *args: str) -> list[str]:
        """Run the installer; return its last lines."""
        installer = await asyncio.create_subprocess_exec(
            self._uv,
            *args,
            "--no-progress",
            "--color=never",
            cwd=self._folder.parent,
            env=_variables(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(self._lock,),
        )
        said: deque[str] = deque(maxlen=_KEPT_LINES)
        try:
            async for line in _lines(installer.stdout):
                said.append(line)
                self._log(line)
            code = await installer.wait()
        finally:
            # Its helpers too: what still holds the lock would make every other attempt wait.
            with suppress(ProcessLookupError):
                os.killpg(installer.pid, signal.SIGKILL)
            await asyncio.shield(installer.wait())
        if code:
            what = " ".join(args[:2]) if args[0] == "pip" else args[0]
            raise EnvironmentFailed(
                f"the environment could not be built: 'uv {what}' ended with {code} "
                f"[digest={self._recipe.digest[:12]}]",
                tail="\n".join(list(said)[-_TAIL_LINES:]),
            )
        return list(said)


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


def _find_uv() -> str:
    try:
        from uv import find_uv_bin  # noqa: PLC0415 - only a build needs it

        return find_uv_bin()
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
    if found is None:
        raise EnvironmentFailed("no installer: there is no 'uv' package and no uv on PATH")
    return found
