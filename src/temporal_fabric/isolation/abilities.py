"""What this host can hold a payload to, and for each thing it cannot: why, and what to do."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from temporal_fabric.errors import FabricError
from temporal_fabric.isolation import bubblewrap
from temporal_fabric.isolation.rules import LEVELS, NONE, SANDBOX
from temporal_fabric.launcher import LauncherClient, cgroups, detection, log_cap
from temporal_fabric.launcher.limits import PIDS, held

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from temporal_fabric.isolation.rules import Rules

YES = "yes"

_NO_GROUPS = (
    "this host's control groups do not limit {what} for the worker: that takes root, or with "
    "version 2 a group that was given to the worker, as by 'systemd-run --scope -p Delegate=yes'"
)
_OLD = (
    "the launcher on this host is of an earlier version: it is replaced as soon as its payloads "
    "have ended"
)


@dataclass(frozen=True, slots=True)
class Abilities:
    """What one host can hold."""

    limits: frozenset[str] = frozenset()
    """Of ``memory``, ``cpus`` and ``pids``, what control groups limit here."""

    most_open_files: int = 0
    root: bool = True
    """Whether payloads belong to root, whom the kernel exempts from some limits."""

    outdated: bool = False
    no_sandbox: str = ""
    """Why there is no sandbox; empty where there is one."""

    no_log_cap: str = ""
    """Why output cannot be capped; empty where it can."""

    def lacks(self, what: str) -> str:
        """Return why a limit cannot be held, empty where it can."""
        if what in self.limits:
            return ""
        return _OLD if self.outdated else _NO_GROUPS.format(what=what)

    def lacks_pids(self, level: str) -> str:
        """Return why the number of processes cannot be held at a level."""
        if level == SANDBOX and not self.root and not self.outdated:
            return ""  # by the resource limit of the sandbox's own user
        return self.lacks(PIDS)

    def lacks_level(self, level: str) -> str:
        """Return why a level cannot be had here, empty where it can."""
        if level == NONE:
            return ""
        if level == SANDBOX and self.no_sandbox:
            return self.no_sandbox
        return self.lacks_pids(level)

    def summary(self) -> dict[str, str]:
        """Return `YES`, or the reason against it, for each level."""
        return {level: self.lacks_level(level) or YES for level in LEVELS}


def of_launcher(info: Mapping[str, Any]) -> Abilities:
    """Return what a launcher says of itself, the sandbox and the file system left out."""
    return Abilities(
        limits=frozenset(info.get("limits", ())),
        most_open_files=int(info.get("most_open_files", 0)),
        root=bool(info.get("root", True)),
        outdated="limits" not in info,
    )


def with_sandbox(able: Abilities, rules: Rules) -> Abilities:
    """Return the abilities with what a try of the sandbox said. Takes some milliseconds."""
    try:
        bubblewrap.probe(bubblewrap.find(rules.bubblewrap))
    except bubblewrap.Unavailable as exc:
        return replace(able, no_sandbox=str(exc))
    return able


def with_log_cap(able: Abilities, runs: Path) -> Abilities:
    """Return the abilities with what a try of the runs' file system said."""
    if able.outdated:
        return replace(able, no_log_cap=_OLD)
    try:
        runs.mkdir(parents=True, exist_ok=True)
        return replace(able, no_log_cap=log_cap.why_not(str(runs)))
    except OSError as exc:
        return replace(able, no_log_cap=str(exc))


async def able_here(home: Path, rules: Rules) -> Abilities:
    """Return what this host can hold: its launcher says so, or a look where none runs.

    Args:
        home: The launcher's folder; none is started.
        rules: The owner's.
    """
    try:
        async with await LauncherClient.connect(home, start=False) as client:
            info = await client.info()
    except FabricError:
        info = await asyncio.to_thread(_look)
    return await asyncio.to_thread(with_sandbox, of_launcher(info), rules)


def _look() -> dict[str, Any]:
    """Return what a launcher of this process would say."""
    bases = detection.detect(f"fabric-look-{os.getpid()}", os.environ.get(detection.CHOICE_ENV, ""))
    for base in bases.folders():
        cgroups.remove_group(base)
    return held(bases)
