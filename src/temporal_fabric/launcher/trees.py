"""The process tree of an attempt: by control group, or else by the marks it carries.

Without control groups a process belongs to the attempt if its environment has the attempt's
markers or if it is in the payload's session. One that scrubbed its environment and left the
session is found only when nothing else runs, which is why that kind is called best effort.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from temporal_fabric.launcher import cgroups, syscalls
from temporal_fabric.launcher.protocol import HOME_ENV, KEY_ENV

if TYPE_CHECKING:
    from collections.abc import Callable

    from temporal_fabric.launcher.bases import Bases
    from temporal_fabric.launcher.limits import Limits

_FREEZE_S = 2.0


class Tree(Protocol):
    """Every process an attempt has started. Methods may block for some milliseconds."""

    def created(self, pid: int) -> None:
        """Learn the pid of the main process, in the launcher's namespace."""
        ...

    def groups(self) -> list[Path]:
        """Return the control groups that the main process has to join."""
        ...

    def signal(self, number: int) -> None:
        """Send a signal to every process of the tree."""
        ...

    def kill(self) -> None:
        """Kill every process that is in the tree now."""
        ...

    def freeze(self) -> bool:
        """Stop every process; return whether all of them stand still."""
        ...

    def thaw(self) -> None:
        """Let every process go on."""
        ...

    def empty(self) -> bool:
        """Return whether no process is left."""
        ...

    def usage(self) -> cgroups.Usage:
        """Return what was counted for the tree."""
        ...

    def remove(self) -> None:
        """Clean up after an empty tree."""
        ...


class GroupTree:
    """A tree held by control groups: nothing leaves it without rights to do so."""

    def __init__(self, bases: Bases, key: str, limits: Limits) -> None:
        self._group = cgroups.Group(bases, key, limits)
        self._group.create()
        self.signal = self._group.signal
        self.kill = self._group.kill
        self.freeze = self._group.freeze
        self.thaw = self._group.thaw
        self.empty = self._group.empty
        self.usage = self._group.usage
        self.remove = self._group.remove

    def created(self, pid: int) -> None:
        """See `Tree`."""

    def groups(self) -> list[Path]:
        """See `Tree`."""
        return self._group.folders


class MarkedTree:
    """A tree found by scanning ``/proc``."""

    def __init__(self, launcher: str, key: str) -> None:
        self._key = f"{KEY_ENV}={key}".encode()
        self._home = f"{HOME_ENV}={launcher}".encode()
        self._session: int | None = None

    def created(self, pid: int) -> None:
        """See `Tree`."""
        self._session = pid

    def groups(self) -> list[Path]:
        """See `Tree`."""
        return []

    def signal(self, number: int) -> None:
        """See `Tree`."""
        signal_marked(self._ours, number)

    def kill(self) -> None:
        """See `Tree`."""
        self.signal(signal.SIGKILL)

    def freeze(self) -> bool:
        """See `Tree`."""
        deadline = time.monotonic() + _FREEZE_S
        while time.monotonic() < deadline:
            # A process that forks while the scan passes may be missed once.
            if not any(signal_marked(self._moves, signal.SIGSTOP) for _ in range(2)):
                return True
        return False

    def thaw(self) -> None:
        """See `Tree`."""
        self.signal(signal.SIGCONT)

    def empty(self) -> bool:
        """See `Tree`."""
        # A process that forks while the scan passes may be missed once.
        return all(signal_marked(self._ours, None) == 0 for _ in range(2))

    def usage(self) -> cgroups.Usage:
        """See `Tree`."""
        return cgroups.Usage()

    def remove(self) -> None:
        """See `Tree`."""

    def _moves(self, pid: int) -> bool:
        stat = syscalls.stat_fields(pid)
        return stat is not None and stat[0] not in "Tt" and self._ours(pid)

    def _ours(self, pid: int) -> bool:
        environ = _environ(pid)
        if self._home in environ:
            return self._key in environ
        return self._session is not None and syscalls.session(pid) == self._session


def signal_marked(ours: Callable[[int], bool], number: int | None) -> int:
    """Send a signal to all live processes that are ours, or just count them."""
    count = 0
    for name in [path.name for path in Path("/proc").iterdir()]:
        if name.isdigit() and int(name) != os.getpid():
            with suppress(OSError):
                count += _signal_one(int(name), ours, number)
    return count


def marked_by(launcher: str) -> Callable[[int], bool]:
    """Return a test for any payload process of a home."""
    marker = f"{HOME_ENV}={launcher}".encode()
    return lambda pid: marker in _environ(pid)


def _signal_one(pid: int, ours: Callable[[int], bool], number: int | None) -> bool:
    # Opened before the look, so that what is signalled is what was looked at, or dead.
    fd = os.pidfd_open(pid)
    try:
        stat = syscalls.stat_fields(pid)
        if stat is None or stat[0] in "ZX" or not ours(pid):
            return False
        if number is not None:
            signal.pidfd_send_signal(fd, number)
        return True
    finally:
        os.close(fd)


def _environ(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
