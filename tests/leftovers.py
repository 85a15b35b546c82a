"""Runs a command and says what it has left on the machine: ``python -m tests.leftovers CMD...``.

Every process that the command leaves without a parent becomes a child of this one, as it would of
an init, however it has cut itself off. So none is overlooked, and none of somebody else is blamed.
Mounts, control groups, network links and users are those of our tests by their names; they are
compared with what there was before, unless other tests run on the machine at the same time, whose
they may be. Something that is left fails the run, and processes are killed.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from temporal_fabric.testing.slurm_left import USER

PATIENCE_S = float(os.environ.get("FABRIC_LEFTOVERS_S", "60"))
"""How long what winds down may take."""

_SUBREAPER = 36
_LOOK_S = 0.1
_OURS = ("/tmp/fab", "/tmp/slurm", "/tmp/dckr", "/var/tmp/fabric-", "/run/netns/fabric-")  # noqa: S108
_GROUPS = ("fabric-", "kubepods")
_LINKS = ("fabrick",)


def things() -> set[str]:
    """Return what bears the names of our tests: mounts, control groups, links and users."""
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    found = {f"mount {at}" for at in (line.split()[1] for line in mounts) if at.startswith(_OURS)}
    for folder, names, _ in os.walk("/sys/fs/cgroup"):
        own = [name for name in names if name.startswith(_GROUPS)]
        found |= {f"control group {folder}/{name}" for name in own}
        names[:] = [name for name in names if name not in own]
    found |= {f"link {path.name}" for path in Path("/sys/class/net").glob(f"{_LINKS[0]}*")}
    return found | {f"user {row.pw_name}" for row in pwd.getpwall() if USER.match(row.pw_name)}


def orphans() -> dict[int, str]:
    """Return the living processes below this one, and what they are."""
    found: dict[int, str] = {}
    waiting = [os.getpid()]
    while waiting:
        pid = waiting.pop()
        with suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                below = [int(child) for child in (task / "children").read_text().split()]
                waiting += below
                found |= {child: _said(child) for child in below}
    return found


def _said(pid: int) -> str:
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
        return f"process {pid} {words.decode(errors='replace')[:160]}"
    return f"process {pid}"


def run(command: list[str]) -> int:
    """Run a command as an init would; return its exit code when it has ended."""
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    child = subprocess.Popen(command)

    def end(number: int, frame: object) -> None:
        del number, frame
        child.terminate()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal tells the command itself
    while True:
        pid, status = os.wait()
        if pid == child.pid:
            child.returncode = os.waitstatus_to_exitcode(status)
            return child.returncode if child.returncode >= 0 else 128 - child.returncode


def others_test() -> bool:
    """Return whether tests run here that are neither above nor below this process."""
    known = {*orphans(), *_above(os.getpid())}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) not in known:
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if b"pytest" in words or any(word.startswith(b"tests.") for word in words):
                    return True
    return False


def _above(pid: int) -> set[int]:
    found: set[int] = set()
    while pid > 1:
        found.add(pid)
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return found


def left(before: set[str] | None) -> list[str]:
    """Return what is left when what winds down has had its time.

    Args:
        before: The things that were there before; None where they are not looked at.
    """
    deadline = time.monotonic() + PATIENCE_S
    while True:
        _reap()
        found = list(orphans().values())
        if before is not None:
            found += sorted(things() - before)
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(_LOOK_S)


def _reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue


def main(command: list[str]) -> int:
    """Run a command; return its exit code, or 1 where it succeeds and leaves something."""
    before = None if others_test() else things()
    code = run(command)
    if before is None or others_test():
        print("==> other tests run here: only processes are looked for", flush=True)
        before = None
    found = left(before)
    for pid in orphans():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for each in found:
        print(f"==> LEFT: {each}", flush=True)
    return code or int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
