"""The environments of a host: what is there, what uses it, and removing what nothing uses.

An attempt marks its environment in its own folder before it takes the environment's lock, and
that folder goes when the capsule is sealed. A clean-up takes the lock first and looks for marks
then: so it sees the mark, or the attempt finds the environment gone and builds it again.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from temporal_fabric import durable
from temporal_fabric.clock import stamp
from temporal_fabric.environments.building import MARKER, try_lock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from temporal_fabric.workplace import Workplace

_USES = "environment"
_GOING = ".going-"
_DIGEST = 64


@dataclass(frozen=True, slots=True)
class Cached:
    """One environment of this host."""

    digest: str
    folder: str
    state: str
    """``ready``, ``building``, or ``broken``: what a killed builder left."""

    size: int
    """Bytes of its files; those that share their place on disk are counted once."""

    packages: int
    made_of: str
    """The first line that tells what it is."""

    last_used: str
    """When an attempt last took it: UTC, ISO 8601."""

    used_by: list[str] = field(default_factory=list[str])
    """Experiments on this host that have it, as ``tenant/id``."""


def mark_use(place: Workplace, digest: str) -> None:
    """Note durably that an attempt is going to use an environment."""
    durable.replace(place.folder / _USES, f"{digest}\n".encode())


def cached(folder: Path, runs: Path) -> list[Cached]:
    """Return the environments below a folder, the least recently used first.

    Args:
        folder: Where environments lie, ``settings.environments``.
        runs: Where the attempts of this host lie, ``settings.runs``.
    """
    uses = _uses(runs)
    found = [_look(path, uses.get(path.name, [])) for path in _folders(folder)]
    return sorted(found, key=lambda one: one.last_used)


def remove_unused(
    folder: Path, runs: Path, *, older_than_s: float = 0.0, dry_run: bool = False
) -> list[Cached]:
    """Remove the environments that nothing uses; return them.

    Args:
        folder: Where environments lie.
        runs: Where the attempts of this host lie.
        older_than_s: Only those that were last used longer ago, in seconds.
        dry_run: Only return what would be removed.
    """
    removed: list[Cached] = []
    for path in _folders(folder):
        lock = try_lock(path)
        if lock is None:
            continue  # it is being built
        try:
            if _uses(runs).get(path.name) or _age_s(path) < older_than_s:
                continue
            removed.append(_look(path, []))
            if not dry_run:
                _remove(path)
        finally:
            os.close(lock)
    if not dry_run:
        _sweep(folder)
    return removed


def _remove(path: Path) -> None:
    """Take the name away first: what a crash leaves of the rest is swept later."""
    going = path.with_name(f"{_GOING}{path.name}")
    shutil.rmtree(going, ignore_errors=True)
    path.rename(going)
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    shutil.rmtree(going, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove what killed workers left of removals and of fetched archives."""
    for path in folder.glob(f"{_GOING}*"):
        shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob("*.archive"):
        lock = try_lock(path.with_suffix(""))
        if lock is not None:
            path.unlink(missing_ok=True)
            path.with_suffix(".lock").unlink(missing_ok=True)
            os.close(lock)


def _folders(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if len(path.name) == _DIGEST and path.is_dir() and not path.is_symlink():
            yield path


def _uses(runs: Path) -> dict[str, list[str]]:
    """Return who has which environment: digest to ``tenant/id``."""
    found: dict[str, list[str]] = {}
    for mark in sorted(runs.glob(f"*/*/*/{_USES}")):
        try:
            digest = mark.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            continue  # sealed meanwhile
        who = "/".join(mark.parts[-4:-2])
        if who not in found.setdefault(digest, []):
            found[digest].append(who)
    return found


def _look(path: Path, used_by: list[str]) -> Cached:
    lines: list[str] = []
    if (path / MARKER).is_file():
        lines = (path / MARKER).read_text(encoding="utf-8").splitlines()[1:]
    about = [line.removeprefix("# ") for line in lines if line.startswith("#")]
    used = datetime.fromtimestamp(time.time() - _age_s(path), UTC)
    return Cached(
        digest=path.name,
        folder=str(path),
        state="ready" if lines else _unfinished(path),
        size=_size(path),
        packages=len(lines) - len(about),
        made_of=about[0] if about else "",
        last_used=stamp(used),
        used_by=used_by,
    )


def _unfinished(path: Path) -> str:
    lock = try_lock(path)
    if lock is None:
        return "building"
    os.close(lock)
    return "broken"


def _age_s(path: Path) -> float:
    marker = path / MARKER
    return time.time() - (marker if marker.is_file() else path).stat().st_mtime


def _size(path: Path) -> int:
    seen: dict[tuple[int, int], int] = {}
    for root, _, names in os.walk(path):
        for name in names:
            about = Path(root, name).lstat()
            seen[about.st_dev, about.st_ino] = about.st_size
    return sum(seen.values())
