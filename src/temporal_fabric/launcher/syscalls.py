"""The few system calls that the standard library lacks, and facts read from ``/proc``."""

from __future__ import annotations

import ctypes
import hashlib
import os
import select
import signal
from pathlib import Path

CLONE_NEWUSER = 0x1000_0000
CLONE_NEWPID = 0x2000_0000

_CLONE_NEWNS = 0x0002_0000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8
_MS_REC, _MS_SLAVE = 0x4000, 0x8_0000
_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mount.argtypes = [ctypes.c_char_p] * 3 + [ctypes.c_ulong, ctypes.c_char_p]
_LIBC.fallocate.argtypes = [ctypes.c_int] * 2 + [ctypes.c_int64] * 2
_LIBC.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4

_SESSION, _START = 3, 19
"""Fields 6 and 22 of ``stat``, counted after the name."""


def unshare(flags: int) -> None:
    """Leave namespaces; the pid namespace takes effect for the next child."""
    _check(_LIBC.unshare(flags), "unshare")


def mount_own_proc() -> None:
    """Leave the mount namespace and let ``/proc`` show this pid namespace."""
    unshare(_CLONE_NEWNS)
    _check(_LIBC.mount(None, b"/", None, _MS_REC | _MS_SLAVE, None), "mount --make-rslave /")
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    _check(_LIBC.mount(b"proc", b"/proc", b"proc", flags, None), "mount /proc")


def become_subreaper() -> None:
    """Adopt orphaned descendants."""
    _check(_LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl subreaper")


def die_with_parent() -> None:
    """Ask for SIGKILL when the thread that forked this process ends."""
    _check(_LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0), "prctl pdeathsig")


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Give a part of a file back to the disk; size and offsets stay."""
    _check(_LIBC.fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, offset, length), "fallocate")


def boot_id() -> str:
    """Return the name of this boot of this machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def stat_fields(pid: int) -> list[str] | None:
    """Return the fields of ``/proc/PID/stat`` after the name, None if there is no process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def start_time(pid: int) -> int | None:
    """Return when the process started, in clock ticks since boot."""
    found = stat_fields(pid)
    return None if found is None else int(found[_START])


def session(pid: int) -> int | None:
    """Return the process's session."""
    found = stat_fields(pid)
    return None if found is None else int(found[_SESSION])


def wait_gone(pid: int, started: int, limit_s: float) -> bool:
    """Wait until the process with this pid and start time is dead; False on timeout.

    Of the first process of a pid namespace this waits for the whole namespace.
    """
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return True
    try:
        if start_time(pid) != started:
            return True
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(limit_s * 1000))
    finally:
        os.close(fd)


def home_id(home: Path) -> str:
    """Return a short name that no other home of this machine has."""
    found = home.stat()
    text = f"{home.resolve()}:{found.st_dev}:{found.st_ino}"
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
