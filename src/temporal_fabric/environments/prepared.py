"""The environment of one attempt: built or found, written down, and turned into variables."""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from temporal_fabric.clock import now
from temporal_fabric.environments.building import MARKER, Source, build
from temporal_fabric.environments.cache import mark_use
from temporal_fabric.environments.conda import CondaPack, Fetch
from temporal_fabric.environments.packages import Packages
from temporal_fabric.errors import EnvironmentFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from temporal_fabric.requests.models import ExecutionRequest
    from temporal_fabric.requests.settings import Environment
    from temporal_fabric.workplace import Workplace

_LOG = "environment.log"
_ERROR = "error.txt"


async def prepare(
    request: ExecutionRequest,
    folder: Path,
    place: Workplace,
    fetch: Fetch,
    say: Callable[[str], None],
) -> dict[str, str]:
    """Make sure that a request's environment stands on this host.

    What the installer writes goes to ``environment.log`` of the attempt, what is installed to
    ``environment.txt``. Many attempts may call this at once; each environment is built once.

    Args:
        request: An admitted request; one without an environment needs nothing, and an image is
            the backend's to have.
        folder: Where environments are kept, one folder per digest.
        place: The attempt's folders, which exist.
        fetch: Brings what lies elsewhere.
        say: Takes what is being done, for people who wait.

    Returns:
        The variables a payload runs under, or none: ``PATH``, ``VIRTUAL_ENV``, and for a
        packed conda environment ``CONDA_PREFIX``.

    Raises:
        EnvironmentFailed: it could not be built; the end of the installer's output stands in
            the attempt's error file.
    """
    asked = request.environment
    if asked is None or asked.image is not None:
        return {}
    with _failures_kept(place.folder / _ERROR):
        source = await asyncio.to_thread(_source, asked, fetch)
        home = folder / source.digest
        await asyncio.to_thread(mark_use, place, source.digest)
        await _build(source, home, place.folder, say)
    found = {"VIRTUAL_ENV": str(home), "PATH": f"{home / 'bin'}{os.pathsep}{_path(request)}"}
    return found | ({"CONDA_PREFIX": str(home)} if asked.conda_pack else {})


@contextmanager
def _failures_kept(error: Path) -> Generator[None]:
    """Write what an installer said last to a file where the block fails."""
    # An earlier worker may have failed here and died before anybody heard of it.
    error.unlink(missing_ok=True)
    try:
        yield
    except (EnvironmentFailed, OSError) as exc:
        failed = exc if isinstance(exc, EnvironmentFailed) else EnvironmentFailed(str(exc))
        if failed.tail:
            error.write_text(f"{failed.tail}\n", encoding="utf-8")
        raise failed from exc


async def _build(source: Source, home: Path, folder: Path, say: Callable[[str], None]) -> None:
    """Build an environment, or find it; the attempt's folder gets its log and its list."""
    with (folder / _LOG).open("a", encoding="utf-8") as file:

        def log(line: str) -> None:
            file.write(f"{line}\n")
            file.flush()

        log(f"{now()} environment {source.digest}")
        built = await build(source, home, log, say)
        log(f"{now()} {'built' if built else 'was built before'}")
    await asyncio.to_thread(shutil.copyfile, home / MARKER, folder / MARKER)


def _source(asked: Environment, fetch: Fetch) -> Source:
    return CondaPack.asked(asked, fetch) if asked.conda_pack else Packages.asked(asked)


def _path(request: ExecutionRequest) -> str:
    """Return the PATH the payload would have had."""
    program = request.payload.process or request.payload.python
    env = {} if program is None else program.env
    return env.get("PATH") or os.environ.get("PATH") or os.defpath
