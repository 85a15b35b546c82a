"""Start a launcher and leave: ``python -I -S starter.py HOME``.

Prints ``ready`` when the launcher listens, ``held`` when another one has the lock, else what
went wrong. The processes on the way::

    starter -> session leader (leaves) -> host half: lock, old launcher dead, sweep
        -> per mode a trial: unshare -> the launcher, first process of its pid namespace

A trial is a process of its own because leaving a namespace cannot be taken back. The trial
writes down the launcher's host pid before it lets it serve.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

    from temporal_fabric.launcher.bases import Bases

_MODES = ("pidns", "userns", "plain")
_MODE_ENV = "FABRIC_LAUNCHER_MODE"
_OLD_S = 300.0


def main() -> int:
    """Start a launcher for the home named on the command line."""
    reader, writer = os.pipe()
    middle = os.fork()
    if middle == 0:
        os.close(reader)
        os.setsid()
        if os.fork() == 0:
            _guarded(lambda: _host_half(Path(sys.argv[1]), writer), writer)
        os._exit(0)
    os.close(writer)
    os.waitpid(middle, 0)
    with os.fdopen(reader, "rb") as answers:
        answer = answers.readline().decode("utf-8", "replace").strip()
    os.write(1, (answer or "the launcher died while it started").encode() + b"\n")
    return 0 if answer in {"ready", "held"} else 1


def _host_half(home: Path, answer: int) -> None:
    from temporal_fabric.launcher import detection, journal, sweep  # noqa: PLC0415 - _own_package

    os.chdir(home)
    home = Path()
    lock = os.open("launcher.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.write(answer, b"held\n")
        return
    journal.redirect()
    if not sweep.wait_for_last(home, _OLD_S):
        raise TimeoutError("the last launcher does not end")
    sweep.sweep(home)
    detection.make_room()
    chosen = os.environ.get(_MODE_ENV)
    if chosen and chosen not in _MODES:
        raise ValueError(f"{_MODE_ENV} is none of {', '.join(_MODES)}: {chosen!r}")
    for mode in (chosen,) if chosen else _MODES:
        trial = os.fork()
        if trial == 0:
            _guarded(partial(_trial, mode, answer))
        _, status = os.waitpid(trial, 0)
        if status == 0:
            return
        if os.WIFSIGNALED(status):
            # It may have let its launcher go before it was killed: never a second one.
            raise ChildProcessError("the start was interrupted")
    raise PermissionError(f"this host permits none of the modes [mode={chosen or 'any'}]")


def _trial(mode: str, answer: int) -> None:
    """Leave the namespaces, fork the launcher, write down who it is, let it serve."""
    from temporal_fabric.launcher import sweep, syscalls  # noqa: PLC0415

    host_proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    _unshare(mode)
    report_read, report_write = os.pipe()
    go_read, go_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(report_read)
        os.close(go_write)
        _guarded(lambda: _launcher(mode, host_proc, report_write, go_read, answer))
    os.close(report_write)
    with os.fdopen(report_read, "rb") as reports:
        report = reports.read()
    if not report:
        raise ChildProcessError(f"the launcher cannot be set up [mode={mode}]")
    info = json.loads(report) | {
        "pid": pid,
        "start_time": syscalls.start_time(pid),
        "boot_id": syscalls.boot_id(),
        "mode": mode,
    }
    temporary = Path(f"{sweep.INFO}.tmp")
    temporary.write_text(json.dumps(info), encoding="utf-8")
    temporary.rename(sweep.INFO)
    os.write(go_write, b"g")


def _unshare(mode: str) -> None:
    from temporal_fabric.launcher import syscalls  # noqa: PLC0415

    # The mount namespace is the launcher's alone: the trial needs the host's /proc.
    uid, gid = os.geteuid(), os.getegid()
    if mode == "pidns":
        syscalls.unshare(syscalls.CLONE_NEWPID)
    elif mode == "userns":
        syscalls.unshare(syscalls.CLONE_NEWPID | syscalls.CLONE_NEWUSER)
        # Without this the group map is refused to everyone but the host's root.
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1", encoding="ascii")


def _launcher(mode: str, host_proc: int, report: int, go: int, answer: int) -> None:
    from temporal_fabric.launcher import detection, server, syscalls  # noqa: PLC0415

    os.setsid()
    if mode == "plain":
        syscalls.become_subreaper()
    else:
        syscalls.mount_own_proc()
    name = f"fabric-{syscalls.home_id(Path())}"
    bases = detection.detect(name, os.environ.get(detection.CHOICE_ENV, ""))
    os.write(report, _report(bases))
    os.close(report)
    if not os.read(go, 1):
        return
    os.close(go)

    def ready() -> None:
        os.write(answer, b"ready\n")
        os.close(answer)

    server.serve(server.Setup(mode, bases, host_proc), ready)


def _report(bases: Bases) -> bytes:
    return json.dumps({"bases": [str(base) for base in bases.folders()]}).encode()


def _guarded(work: Callable[[], None], answer: int | None = None) -> NoReturn:
    """Run the work of a forked process, which must never return into its parent's code."""
    code = 1
    try:
        work()
        code = 0
    except BaseException as exc:  # noqa: BLE001 - the last handler of this process
        text = f"{type(exc).__name__}: {exc}".replace("\n", " ").encode("utf-8", "replace")
        os.write(2, text + b"\n")
        if answer is not None:
            os.write(answer, text + b"\n")
    finally:
        os._exit(code)


def _own_package() -> None:
    """Make the siblings importable by their full names, from this folder alone.

    Site-packages stays out, and so do the ``__init__`` modules: the launcher has to be small.
    """
    folder = Path(__file__).resolve().parent
    for name, path in (
        ("temporal_fabric", folder.parent),
        ("temporal_fabric.launcher", folder),
    ):
        package = ModuleType(name)
        package.__path__ = [str(path)]
        sys.modules[name] = package
    # asyncio does without it, and it is a fifth of the launcher's memory.
    sys.modules["ssl"] = None  # type: ignore[assignment]  # the documented way to forbid it


if __name__ == "__main__":
    _own_package()
    sys.exit(main())
