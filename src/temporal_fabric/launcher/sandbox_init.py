"""The first process in a sandbox: starts the payload, waits, reports its true end.

``python -I -S sandbox_init.py PLAN [DOOR]``, both descriptors: the plan is read, and through
the door the launcher asks for commands beside the payload. Nothing but the standard library is
there. Being the first process of its pid namespace it cannot be killed from inside, and the
kernel ends everything else when it ends.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from socket import socket

_NOT_STARTED = 127
_NPROC = resource.RLIMIT_NPROC
_LARGEST = 4096
_WRITTEN = ("stdout", "stderr", "err")
"""What a command's descriptors are for, in the order in which they come behind its plan."""


def main(source: int, door: int | None) -> NoReturn:
    """Run the plan and leave."""
    plan = _read(source)
    report = os.dup(2)
    os.dup2(plan["stderr"], 2)
    os.close(plan["stderr"])
    os.set_inheritable(plan["err"], False)  # noqa: FBT003 - the library's signature
    children = _Children(plan, door)
    payload = os.fork()
    if payload == 0:
        _become(plan)
    os.close(plan["err"])
    status = children.wait_for(payload)
    os.write(report, f"end {status}\n".encode())
    os._exit(0)


class _Children:
    """The payload, what it leaves behind, and the commands beside it."""

    def __init__(self, plan: dict[str, Any], door: int | None) -> None:
        # A command is held to the payload's limits.
        self._plan = plan
        self._numbers: dict[int, int] = {}
        """Number of each command by its pid."""

        self._socket: socket | None = None
        self._door = door
        self._poll = select.poll()
        self._woken, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # An end that comes between looking for one and waiting must end the waiting.
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _noted)
        self._poll.register(self._woken, select.POLLIN)
        if door is not None:
            os.set_inheritable(door, False)  # noqa: FBT003 - the library's signature
            self._poll.register(door, select.POLLIN)

    def wait_for(self, payload: int) -> int:
        """Run commands until the payload ends; return its wait status."""
        while True:
            with suppress(ChildProcessError):
                while (found := os.waitpid(-1, os.WNOHANG))[0]:
                    pid, status = found
                    if pid == payload:
                        return status
                    if number := self._numbers.pop(pid, None):
                        self._tell(number, status)
            for fd, _ in self._poll.poll():
                if fd == self._woken:
                    os.read(fd, _LARGEST)
                else:
                    self._listen()

    def _listen(self) -> None:
        # Imported late, because most sandboxes end without having been asked for anything.
        import socket  # noqa: PLC0415

        if self._socket is None:
            kind = socket.SOCK_SEQPACKET
            self._socket = socket.socket(socket.AF_UNIX, kind, fileno=self._door)
        message, fds, _, _ = socket.recv_fds(self._socket, _LARGEST, len(_WRITTEN) + 1)
        for fd in fds:
            os.set_inheritable(fd, False)  # noqa: FBT003 - the library's signature
        if not message:
            self._poll.unregister(self._socket)
            return
        asked = json.loads(message)
        if "run" in asked:
            self._run(asked["run"], *fds)
            return
        for pid, number in self._numbers.items():
            if number == asked["kill"]:
                # It leads a session of its own from its first moment on.
                with suppress(ProcessLookupError):
                    os.killpg(pid, asked["signal"])

    def _run(self, number: int, source: int, *written: int) -> None:
        plan = self._plan | _read(source) | dict(zip(_WRITTEN, written, strict=True))
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
            for target, name in enumerate(_WRITTEN[:2], 1):
                os.dup2(plan[name], target)
            _become(plan)
        for fd in written:
            os.close(fd)
        self._numbers[pid] = number

    def _tell(self, number: int, status: int) -> None:
        if self._socket is not None:
            with suppress(OSError):
                self._socket.send(json.dumps({"ended": number, "status": status}).encode())


def _noted(number: int, frame: object) -> None:
    """Do nothing: the signal has ended the waiting."""
    del number, frame


def _read(source: int) -> dict[str, Any]:
    with os.fdopen(source, "rb") as file:
        plan: dict[str, Any] = json.load(file)
    return plan


def _become(plan: dict[str, Any]) -> NoReturn:
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            with suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for kind, name in ((resource.RLIMIT_NOFILE, "open_files"), (_NPROC, "user_processes")):
            if plan[name] is not None:
                resource.setrlimit(kind, (plan[name], plan[name]))
        if plan["no_core"]:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.execvpe(plan["argv"][0], plan["argv"], plan["env"])  # noqa: S606 - as in the launcher
    except OSError as exc:
        os.write(plan["err"], f"{exc.strerror}: {plan['argv'][0]!r}".encode("utf-8", "replace"))
    except BaseException as exc:  # noqa: BLE001 - a forked copy must not go on
        os.write(plan["err"], f"{type(exc).__name__}: {exc}".encode("utf-8", "replace"))
    finally:
        os._exit(_NOT_STARTED)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if sys.argv[2:] else None)
