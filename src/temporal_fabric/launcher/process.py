"""Fork, wait for permission, exec.

The child joins its control groups and tells its host pid, then waits on the "go" pipe. The
launcher gives the permission after the ``running`` record is in place; if it dies before, the
child reads the end of the pipe and leaves without ever having run the payload. So an attempt
without a ``running`` record provably did not run.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from temporal_fabric.launcher import limits, sandboxed, syscalls
from temporal_fabric.launcher.door import Door
from temporal_fabric.launcher.protocol import HOME_ENV, KEY_ENV
from temporal_fabric.launcher.sandboxed import Report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from temporal_fabric.launcher.protocol import LaunchSpec

_NOT_LET_GO, _NOT_STARTED = 125, 127
_PID_LINE = b"pid "
_KILLED_LAST = b"300"
"""Under memory pressure the kernel takes a payload before the launcher and the worker."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every child of this launcher needs to know."""

    host_proc: int
    """Descriptor of the ``/proc`` of the host's pid namespace."""

    dies_with_parent: bool
    """Whether the parent-death signal is needed; a pid namespace needs none."""


class Child:
    """The launcher's end of a forked child."""

    def __init__(self, pid: int, err: int, go: int, inside: _Inside | None) -> None:
        self.pid = pid
        self.report = None if inside is None else inside.report
        """Tells the true end of a payload in a sandbox, whose own end the child's is not."""

        self.door = None if inside is None else inside.door
        """Where its sandbox is asked for a command beside it."""

        self.start_time = syscalls.start_time(pid)
        self._err, self._go = err, go
        self._early = b""

    async def host_pid(self) -> int | None:
        """Return the pid the host knows it by; None if the child failed before."""
        self._reader = await reading(self._err)
        line = await self._reader.readline()
        if line.startswith(_PID_LINE):
            return int(line.removeprefix(_PID_LINE))
        self._early = line
        return None

    def release(self, *, run: bool) -> None:
        """Let the child exec, or tell it to leave."""
        with suppress(BrokenPipeError):
            if run:
                os.write(self._go, b"g")
        os.close(self._go)

    async def error(self) -> str:
        """Wait for the exec; return why there was none, or nothing."""
        text = self._early + await self._reader.read()
        return text.decode("utf-8", "replace").strip()


async def reading(fd: int) -> asyncio.StreamReader:
    """Return what reads a pipe to its end, and then closes it."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", 0)
    )
    return reader


def spawn(
    spec: LaunchSpec,
    env: dict[str, str],
    groups: Sequence[Path],
    around: Surroundings,
    *,
    streams: tuple[int, int] | None = None,
) -> Child:
    """Fork a child that waits for its release. Must run in the main thread.

    The parent-death signal belongs to the forking thread, not to the process.

    Args:
        spec: What to become.
        env: Its whole environment.
        groups: The control groups to join.
        around: What every child needs to know.
        streams: Descriptors for standard output and error, instead of the spec's files.
    """
    err_read, err_write = os.pipe()
    go_read, go_write = os.pipe()
    inside = _Inside() if spec.sandbox is not None else None
    parent = os.getpid()
    # A signal that arrives in the child before it has reset its handlers would be taken for
    # one of the launcher's.
    old = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            ends = _Ends(parent, err_write, go_read, streams, inside)
            _child(spec, env, groups, around, ends)
    except BaseException:
        for fd in (err_read, err_write, go_read, go_write):
            os.close(fd)
        if inside is not None:
            inside.close_targets()
            inside.report.close()
            inside.door.close()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)
    os.close(err_write)
    os.close(go_read)
    if inside is not None:
        inside.close_targets()
    return Child(pid, err_read, go_write, inside)


class _Inside:
    """What leads into a sandbox and out of it."""

    def __init__(self) -> None:
        self.report, self.door = Report(), Door()

    def close_targets(self) -> None:
        """Leave the other ends to the child."""
        self.report.close_target()
        self.door.close_target()


@dataclass(frozen=True, slots=True)
class _Ends:
    """What a child has of its parent: the pid, and its ends of the pipes."""

    parent: int
    err: int
    go: int
    streams: tuple[int, int] | None
    inside: _Inside | None

    def kept(self) -> list[int]:
        """Return the descriptors that the child needs."""
        found = [self.err, self.go, *(self.streams or ())]
        return found + (
            [self.inside.report.target, self.inside.door.target] if self.inside is not None else []
        )


def _child(
    spec: LaunchSpec,
    env: dict[str, str],
    groups: Sequence[Path],
    around: Surroundings,
    ends: _Ends,
) -> NoReturn:
    code, err = _NOT_STARTED, ends.err
    try:
        _close_all_but(*ends.kept(), around.host_proc)
        os.setsid()
        if around.dies_with_parent:
            syscalls.die_with_parent()
            if os.getppid() != ends.parent:
                os._exit(_NOT_LET_GO)
        for group in groups:
            _write(group / "cgroup.procs", b"0")
        with suppress(OSError):
            _write("/proc/self/oom_score_adj", _KILLED_LAST)
        host_pid = os.readlink("self", dir_fd=around.host_proc)
        os.write(err, _PID_LINE + host_pid.encode() + b"\n")
        if not os.read(ends.go, 1):
            code = _NOT_LET_GO
        else:
            _become(spec, env, ends)
    except BaseException as exc:  # noqa: BLE001 - a forked copy of the launcher must not go on
        os.write(err, _sentence(exc).encode("utf-8", "replace"))
    finally:
        os._exit(code)


def _become(spec: LaunchSpec, env: dict[str, str], ends: _Ends) -> None:
    if spec.sandbox is None:
        os.chdir(spec.cwd)
    os.dup2(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), 0)
    stdout, stderr = ends.streams or (_log(spec.stdout), _log(spec.stderr))
    os.dup2(stdout, 1)
    # Python ignores SIGPIPE and SIGXFSZ; ignored signals stay ignored across exec.
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if spec.sandbox is not None and ends.inside is not None:
        marks = {name: env[name] for name in (KEY_ENV, HOME_ENV)}
        pipes = {"err": ends.err, "report": ends.inside.report.target, "stderr": stderr}
        pipes |= {"door": ends.inside.door.target}
        sandboxed.become(spec.sandbox, spec.argv, env, spec.limits, marks=marks, **pipes)
    os.dup2(stderr, 2)
    limits.apply(spec.limits)
    try:
        os.execvpe(spec.argv[0], spec.argv, env)  # noqa: S606 - no shell is the safe form
    except OSError as exc:
        # The search through PATH reports its last folder; people look for what they wrote.
        raise OSError(exc.errno, exc.strerror, spec.argv[0]) from None


def _log(path: str) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
    return os.open(path, flags, 0o600)


def _close_all_but(*kept: int) -> None:
    # Every descriptor is closed on exec anyway; before that, copies of other children's
    # pipes would delay the end of file those children wait for.
    for fd in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        if fd > 2 and fd not in kept:  # noqa: PLR2004 - the standard streams
            with suppress(OSError):
                os.close(fd)


def _write(path: Path | str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def _sentence(exc: BaseException) -> str:
    if isinstance(exc, OSError):
        return f"{exc.strerror}: {exc.filename!r}"
    return f"{type(exc).__name__}: {exc}"
