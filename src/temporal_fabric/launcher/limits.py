"""What the kernel holds a payload to: by its control groups, and by resource limits.

Which of the control groups' limits a host can hold depends on its controllers; a limit that
cannot be written is an error, never left out.
"""

from __future__ import annotations

import os
import resource
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from temporal_fabric.launcher.bases import Bases

MEMORY, CPUS, PIDS = "memory", "cpus", "pids"

_PERIOD_US, _LONGEST_PERIOD_US = 100_000, 1_000_000
_SHORTEST_QUOTA_US = 1_000


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one attempt; None, and False, limit nothing."""

    memory_bytes: int | None = None
    """Of the whole tree, files in memory included; swap does not add to it."""

    cpus: float | None = None
    """Processor seconds per second, of the whole tree."""

    pids: int | None = None
    """Processes and threads at one time, of the whole tree."""

    user_processes: int | None = None
    """The same by a resource limit: exact in a sandbox, which is a user of its own.

    The kernel does not hold root to it.
    """

    open_files: int | None = None
    """File descriptors of each process."""

    no_core: bool = False
    """Whether a crash leaves no core file."""

    log_bytes: int | None = None
    """What is kept of standard output and error together; the middle is given up."""

    def check(self) -> None:
        """Refuse what can hold for nothing.

        Raises:
            ValueError: the sentence says which limit is wrong.
        """
        for name, value in asdict(self).items():
            if value is not None and not isinstance(value, bool) and not value > 0:
                raise ValueError(f"{name} is not a positive number: {value}")

    def as_dict(self) -> dict[str, Any]:
        """Return what is limited as a JSON object."""
        return {name: value for name, value in asdict(self).items() if value}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Limits:
        """Rebuild limits from `as_dict`; unknown ones are refused."""
        return cls(**data)


def held(bases: Bases) -> dict[str, Any]:
    """Return what a process like this one can hold payloads to, with these bases.

    ``limits`` lists what control groups limit, ``most_open_files`` is the highest such limit,
    ``root`` tells whether the kernel exempts payloads from limits of users.
    """
    found = ((MEMORY, bases.memory), (CPUS, bases.quota), (PIDS, bases.pids))
    return {
        "limits": [name for name, base in found if base is not None],
        "most_open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        "root": os.geteuid() == 0,
    }


def folders(bases: Bases, limits: Limits) -> list[Path]:
    """Return the bases that the limits need.

    Raises:
        ValueError: a limit has no controller here.
    """
    asked = (
        ("memory_bytes", limits.memory_bytes, bases.memory),
        ("cpus", limits.cpus, bases.quota),
        ("pids", limits.pids, bases.pids),
    )
    lacking = [name for name, value, base in asked if value is not None and base is None]
    if lacking:
        raise ValueError(f"no control group here limits {', '.join(lacking)}")
    return [base for _, value, base in asked if value is not None and base is not None]


def write(bases: Bases, name: str, limits: Limits) -> None:
    """Write the limits into the groups called `name`, which exist and are empty.

    Raises:
        OSError: the kernel refuses one.
    """
    if limits.memory_bytes is not None and bases.memory is not None:
        _write_memory(bases.memory / name, limits.memory_bytes)
    if limits.cpus is not None and bases.quota is not None:
        _write_cpus(bases.quota / name, limits.cpus)
    if limits.pids is not None and bases.pids is not None:
        _write(bases.pids / name / "pids.max", limits.pids)


def apply(limits: Limits) -> None:
    """Limit the calling process and what it becomes.

    Raises:
        OSError, ValueError: more is asked for than this process may have.
    """
    if limits.open_files is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limits.open_files, limits.open_files))
    if limits.no_core:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _write_memory(group: Path, size: int) -> None:
    if (group / "memory.max").exists():
        _write(group / "memory.max", size)
        swap = (group / "memory.swap.max", 0)
    else:
        _write(group / "memory.limit_in_bytes", size)
        # Of memory and swap together, and never below the limit of memory alone.
        swap = (group / "memory.memsw.limit_in_bytes", size)
    if swap[0].exists():
        _write(*swap)


def _write_cpus(group: Path, cpus: float) -> None:
    # The kernel takes no quota below a millisecond, so small shares need a longer period.
    small = cpus * _PERIOD_US < _SHORTEST_QUOTA_US
    period = _LONGEST_PERIOD_US if small else _PERIOD_US
    quota = max(round(cpus * period), _SHORTEST_QUOTA_US)
    if (group / "cpu.max").exists():
        _write(group / "cpu.max", f"{quota} {period}")
        return
    _write(group / "cpu.cfs_period_us", period)
    _write(group / "cpu.cfs_quota_us", quota)


def _write(path: Path, value: float | str) -> None:
    path.write_text(str(value), encoding="ascii")
