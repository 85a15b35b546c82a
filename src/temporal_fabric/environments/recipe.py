"""What to install, as text, and the digest that names the result.

The digest covers the lines, the interpreter and the content of packages that are folders or
files of this host: a changed package is another environment.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from temporal_fabric import durable
from temporal_fabric.errors import EnvironmentFailed
from temporal_fabric.store import local_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from temporal_fabric.requests.settings import Environment

_FORMAT = 1
"""Raised when the same recipe would be built into something else."""

_FILE_BYTES = 4 << 20
_LOCAL = re.compile(r"(?:^|@)\s*(?:file://)?(/[^\s;#\[]+)")
_MADE_BY_BUILDS = ("build", "dist", "__pycache__")


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to install with which interpreter."""

    text: str
    """One requirement a line, as installers read it."""

    locked: bool
    """Whether every package must come with a hash."""

    local: bool
    """Whether a package is a folder or file of this host, which installers cache too long."""

    digest: str
    """Names the environment: 64 hexadecimal digits."""


def host_file(where: str) -> Path | None:
    """Return the file of this host that a request names, or None where it names another place."""
    if "://" in where:
        return local_path(where)
    return Path(where) if where.startswith("/") else None


def read_recipe(asked: Environment) -> Recipe:
    """Read what a request asks to be installed.

    Raises:
        EnvironmentFailed: the file cannot be read, or has a line that is not a requirement.
    """
    source = asked.lock if asked.lock is not None else asked.requirements
    if isinstance(source, str):
        path = host_file(source)
        if path is None:
            raise EnvironmentFailed(f"not a file of this host [path={source}]: give a full path")
        lines, folder = _lines(path), path.parent
    else:
        lines, folder = list(source or ()), None
    text = "".join(f"{_checked(line, folder)}\n" for line in lines)
    return _recipe(text, locked=asked.lock is not None)


def _lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            data = file.read(_FILE_BYTES + 1)
        text = data.decode()
    except (OSError, UnicodeDecodeError) as exc:
        raise EnvironmentFailed(f"cannot read the environment's file [path={path}]: {exc}") from exc
    if len(data) > _FILE_BYTES:
        raise EnvironmentFailed(f"the environment's file is above 4 MiB [path={path}]")
    return text.splitlines()


def _checked(line: str, folder: Path | None) -> str:
    stripped = line.strip()
    if stripped.startswith("-") and not stripped.startswith("--hash="):
        # Options choose indexes and other files: that belongs to the host's own settings.
        raise EnvironmentFailed(f"an option where a requirement belongs [line={stripped[:80]!r}]")
    if "${" in stripped and not stripped.startswith("#"):
        # Installers put the worker's variables there, and so into addresses they ask.
        raise EnvironmentFailed(f"a variable in a requirement [line={stripped[:80]!r}]")
    if stripped.startswith("."):
        if folder is None:
            raise EnvironmentFailed(f"a relative path [line={stripped[:80]!r}]: give a full path")
        return os.path.normpath(folder / stripped)
    return line


def _recipe(text: str, *, locked: bool) -> Recipe:
    places = [Path(unquote(found)) for line in text.splitlines() for found in _LOCAL.findall(line)]
    facts = {
        "format": _FORMAT,
        "text": text,
        "locked": locked,
        "python": [sys.version, sys.implementation.cache_tag, platform.machine()],
        "local": [_content(place) for place in places],
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return Recipe(text, locked, bool(places), digest)


def _content(place: Path) -> dict[str, str]:
    """Return the digest of every file of a local package; empty where there is none."""
    try:
        if place.is_file():
            return {place.name: durable.hash_file(place)[1]}
        return {
            str(path.relative_to(place)): durable.hash_file(path)[1] for path in _sources(place)
        }
    except OSError as exc:
        raise EnvironmentFailed(f"cannot read a local package [path={place}]: {exc}") from exc


def _sources(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _made(name))
        for name in sorted(names):
            path = Path(root, name)
            if path.is_file() and not path.is_symlink():
                yield path


def _made(name: str) -> bool:
    return name.startswith(".") or name in _MADE_BY_BUILDS or name.endswith(".egg-info")
