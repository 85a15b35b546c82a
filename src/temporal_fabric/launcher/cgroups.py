"""The control groups of attempts, of version 2, version 1 or both mixed.

One group per attempt below one base per home, which `detection` finds. Groups are for killing
whole trees, for counting, and for the limits that an attempt asks for.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from temporal_fabric.launcher import limits as held
from temporal_fabric.launcher.bases import distinct

if TYPE_CHECKING:
    from temporal_fabric.launcher.bases import Bases
    from temporal_fabric.launcher.limits import Limits

_FREEZE_S = 2.0
_PREFIX = "a-"
"""Without it a key could be the name of a control file."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What the kernel counted for a whole tree; None where it did not."""

    oom_kills: int = 0
    max_rss_bytes: int | None = None
    cpu_s: float | None = None


class Group:
    """The control groups of one attempt."""

    def __init__(self, bases: Bases, key: str, limits: Limits) -> None:
        if bases.kill is None:
            raise ValueError("no control groups here")
        self._bases, self._limits = bases, limits
        self._name = _PREFIX + key
        needed = distinct(bases.kill, bases.memory, bases.cpu, *held.folders(bases, limits))
        self.folders = [base / self._name for base in needed]
        self._kill = bases.kill / self._name

    def create(self) -> None:
        """Make the groups and write the limits.

        Raises:
            OSError: the kernel refuses a group or a limit.
        """
        try:
            for folder in self.folders:
                folder.mkdir(exist_ok=True)
            held.write(self._bases, self._name, self._limits)
        except OSError:
            self.remove()
            raise

    def signal(self, number: int) -> None:
        """Send a signal to every process of the tree."""
        signal_group(self._kill, number)

    def kill(self) -> None:
        """Kill every process that is in the tree now."""
        kill_group(self._kill)

    def freeze(self) -> bool:
        """Stop every process of the tree; return whether all of them stand still."""
        return freeze_group(self._kill)

    def thaw(self) -> None:
        """Let every process of the tree go on."""
        thaw_group(self._kill)

    def empty(self) -> bool:
        """Return whether no process is left."""
        return group_empty(self._kill)

    def remove(self) -> None:
        """Remove the groups; one that still winds down is left to the next sweep."""
        for folder in self.folders:
            remove_group(folder)

    def usage(self) -> Usage:
        """Return the counters; must be asked before `remove`."""
        memory = self._bases.memory
        cpu = self._bases.cpu or self._bases.kill
        oom, peak = _memory(memory / self._name) if memory else (0, None)
        return Usage(oom, peak, _cpu(cpu / self._name) if cpu else None)


def sweep_base(base: Path, limit_s: float) -> bool:
    """Kill and remove all attempts' groups below a base; return whether no process is left."""
    deadline = time.monotonic() + limit_s
    with suppress(OSError):
        for group in [Path(entry.path) for entry in os.scandir(base) if entry.is_dir()]:
            while not group_empty(group) and time.monotonic() < deadline:
                kill_group(group)
                time.sleep(0.005)
            remove_group(group)
    remove_group(base)
    return group_empty(base)


def signal_group(group: Path, number: int) -> None:
    """Send a signal to each process of a group, never to a reused pid."""
    fds: dict[int, int] = {}
    try:
        for pid in _pids(group):
            with suppress(OSError):
                fds[pid] = os.pidfd_open(pid)
        # Whoever is listed after its descriptor was opened is the process behind it.
        for pid in set(_pids(group)) & fds.keys():
            with suppress(OSError):
                signal.pidfd_send_signal(fds[pid], number)
    finally:
        for fd in fds.values():
            os.close(fd)


def kill_group(group: Path) -> None:
    """Kill every process of a group; version 1 freezes it first, so that none can fork."""
    if (group / "cgroup.kill").exists():
        with suppress(OSError):
            (group / "cgroup.kill").write_text("1", encoding="ascii")
        return
    state = group / "freezer.state"
    if state.exists():
        _freeze(state)
    signal_group(group, signal.SIGKILL)
    # SIGKILL does nothing to a frozen process of version 1.
    thaw_group(group)


def freeze_group(group: Path) -> bool:
    """Stop every process of a group; return whether all of them stand still."""
    state = group / "freezer.state"
    if state.exists():
        return _freeze(state)
    deadline = time.monotonic() + _FREEZE_S
    with suppress(OSError):
        (group / "cgroup.freeze").write_text("1", encoding="ascii")
        while time.monotonic() < deadline:
            if "frozen 1" in (group / "cgroup.events").read_text(encoding="ascii"):
                return True
            time.sleep(0.002)
    return False


def thaw_group(group: Path) -> None:
    """Let every process of a group go on."""
    for name, word in (("cgroup.freeze", "0"), ("freezer.state", "THAWED")):
        if (group / name).exists():
            with suppress(OSError):
                (group / name).write_text(word, encoding="ascii")


def group_empty(group: Path) -> bool:
    """Return whether a group has no live process, or does not exist."""
    try:
        events = (group / "cgroup.events").read_text(encoding="ascii")
    except OSError:
        return not _pids(group)
    return "populated 0" in events


def remove_group(group: Path) -> None:
    """Remove an empty group, and the groups that a payload made below it."""
    for _ in range(20):
        for folder, _, _ in os.walk(group, topdown=False):
            with suppress(OSError):
                Path(folder).rmdir()
        if not group.exists():
            return
        time.sleep(0.002)


def _freeze(state: Path) -> bool:
    deadline = time.monotonic() + _FREEZE_S
    with suppress(OSError):
        # While processes fork the freezer has to be told again and again.
        while time.monotonic() < deadline:
            state.write_text("FROZEN", encoding="ascii")
            if state.read_text(encoding="ascii").strip() == "FROZEN":
                return True
            time.sleep(0.0005)
    return False


def _pids(group: Path) -> list[int]:
    found: list[int] = []
    # A payload may have made groups below its own.
    for folder, _, _ in os.walk(group):
        with suppress(OSError):
            text = (Path(folder) / "cgroup.procs").read_text(encoding="ascii")
            # Processes outside our pid namespace are listed as 0.
            found += [int(line) for line in text.split() if line != "0"]
    return found


def _memory(group: Path) -> tuple[int, int | None]:
    counts = _table(group / "memory.events") or _table(group / "memory.oom_control")
    peak = _number(group / "memory.peak") or _number(group / "memory.max_usage_in_bytes")
    return counts.get("oom_kill", 0), peak


def _cpu(group: Path) -> float | None:
    nanoseconds = _number(group / "cpuacct.usage")
    if nanoseconds is not None:
        return nanoseconds / 1e9
    microseconds = _table(group / "cpu.stat").get("usage_usec")
    return None if microseconds is None else microseconds / 1e6


def _table(path: Path) -> dict[str, int]:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    return {name: int(value) for name, _, value in (line.partition(" ") for line in lines)}


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
