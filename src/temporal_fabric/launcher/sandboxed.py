"""Becoming a payload inside a sandbox, and learning how it ended there.

A sandbox program such as bubblewrap runs between the launcher and the payload. It tells a
signal as an exit code, so the first process inside is `sandbox_init`, which reports the true
wait status through a pipe. The same pipe takes what the sandbox program complains about.
"""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from temporal_fabric.launcher.limits import Limits

END = b"end "

_LARGEST = 4096
_SIGNALLED = 128


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What stands between the launcher and a payload."""

    command: tuple[str, ...]
    """The sandbox program by its full path, with its options."""

    init: tuple[str, ...]
    """The command of `sandbox_init`, as the inside of the sandbox sees it."""

    filter: str
    """Full path of the compiled system call filter."""

    def check(self) -> None:
        """Refuse what cannot be a sandbox.

        Raises:
            ValueError: the sentence says what is wrong.
        """
        if not self.command or not self.command[0].startswith("/") or not self.init:
            raise ValueError("a sandbox needs a program by its full path and a first process")
        if any("\0" in text for text in (*self.command, *self.init, self.filter)):
            raise ValueError("a string contains a NUL character")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Sandbox:
        """Rebuild a sandbox from its JSON object."""
        return cls(tuple(data["command"]), tuple(data["init"]), str(data["filter"]))


class Report:
    """The launcher's end of the pipe on which a sandbox reports."""

    def __init__(self) -> None:
        self.source, self.target = os.pipe()
        os.set_blocking(self.source, False)

    def close_target(self) -> None:
        """Leave the other end to the child."""
        os.close(self.target)

    def close(self) -> None:
        """Close the launcher's end."""
        os.close(self.source)

    def outcome(self, status: int) -> tuple[int, str]:
        """Return the payload's wait status, and why it never ran where it did not.

        Args:
            status: Wait status of the sandbox program, which has ended.
        """
        text = b""
        with suppress(BlockingIOError):
            text = os.read(self.source, _LARGEST)
        os.close(self.source)
        complaint, found, end = text.rpartition(END)
        if found:
            return (int(end.split()[0]), "")
        if os.WIFSIGNALED(status):
            return (status, "")
        code = os.waitstatus_to_exitcode(status)
        if code > _SIGNALLED and not complaint:
            # The first process was killed inside, which the program tells as a code.
            return (code - _SIGNALLED, "")
        said = end.decode("utf-8", "replace").strip()
        return (status, said or f"the sandbox ended with code {code}")


def become(
    sandbox: Sandbox,
    argv: tuple[str, ...],
    env: Mapping[str, str],
    limits: Limits,
    *,
    marks: Mapping[str, str],
    stderr: int,
    err: int,
    report: int,
    door: int,
) -> None:
    """Replace this process by the sandbox; standard input and output are in place.

    The sandbox program gets the marks of the attempt alone: variables of the payload, such as
    those of the dynamic linker, must take effect inside only.

    Raises:
        OSError: there is no such program.
    """
    plan = os.memfd_create("plan", 0)
    asked = {
        "argv": argv,
        "env": dict(env),
        "stderr": stderr,
        "err": err,
        "open_files": limits.open_files,
        "user_processes": limits.user_processes,
        "no_core": limits.no_core,
    }
    os.write(plan, json.dumps(asked).encode())
    os.lseek(plan, 0, os.SEEK_SET)
    rules = os.open(sandbox.filter, os.O_RDONLY)
    for fd in (stderr, err, door, rules):
        os.set_inheritable(fd, True)  # noqa: FBT003 - the standard library's signature
    os.dup2(report, 2)
    # The stop signal goes to every process of the tree: the payload decides, not its sandbox.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    init = (*sandbox.init, str(plan), str(door))
    command = (*sandbox.command, "--seccomp", str(rules), "--", *init)
    try:
        os.execve(command[0], command, dict(marks))  # noqa: S606 - no shell is the safe form
    except OSError as exc:
        raise OSError(exc.errno, exc.strerror, command[0]) from None


def init_file() -> Path:
    """Return the program that has to be the first one in a sandbox."""
    return Path(__file__).with_name("sandbox_init.py")
