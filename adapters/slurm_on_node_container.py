"""Starts the payload of a job in a container, by the runtime of the site.

Runs on a compute node as the payload's first process, under the same Python as `slurm_on_node`,
which starts it. Its arguments are the job's folder, a descriptor, and for a command beside the
payload that command. The descriptor is closed when the payload has begun; what was said on it
before is why it has not. Everything that is run stands in the job's folder::

    container.json   command lines, variables and the image, private to the user
    inside.json      the process whose namespaces a command beside the payload enters

Podman keeps its state in memory that only this process and what it starts can see: whoever kills
the job, however, leaves neither container nor mount behind.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    Table = dict[str, Any]

_NEW_USER, _NEW_MOUNTS = 0x10000000, 0x00020000
_PRIVATE, _RECURSIVE = 1 << 18, 1 << 14
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER
_LOOK_S = 0.02
_WORDS = 600
_BY_SIGNAL = 128
_CANNOT = 125
_LIBC = ctypes.CDLL(None, use_errno=True)


class CannotStart(Exception):
    """Nothing was started; the message says why, and what to do."""


def main(folder: str, telling: int, command: list[str]) -> int:
    """Run the payload, or a command beside it; return its exit code or die by its signal."""
    with open(os.path.join(folder, "container.json"), encoding="utf-8") as file:
        plan = json.load(file)
    # Its runtime hands SIGTERM on; what is started gets the signal's usual meaning back.
    signal.signal(signal.SIGTERM, _leave_alone)
    os.set_inheritable(telling, False)  # noqa: FBT003 - its own
    with os.fdopen(telling, "w", encoding="utf-8") as told:
        try:
            process = _beside(folder, plan, command) if command else _payload(folder, plan)
        except (CannotStart, OSError) as exc:
            told.write(str(exc))
            return _CANNOT
    return _ended(process.wait())


def _leave_alone(number: int, frame: object) -> None:
    del number, frame


def _payload(folder: str, plan: Table) -> subprocess.Popen[bytes]:
    """Start the container and return once its payload exists."""
    if shutil.which(plan["run"][0]) is None:
        raise CannotStart(
            f"{os.uname().nodename} has no {plan['run'][0]}: install it, or load it with the "
            "backend's option 'setup'"
        )
    if plan["file"] and not os.path.exists(plan["file"]):
        raise CannotStart(f"there is no image {plan['file']}: make it, see the option image_folder")
    for path in plan["written"]:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
    env = _environment(plan)
    if plan["state"]:
        _isolate(plan)
        _note(folder, {"pid": os.getpid()})
    _have(plan, env)
    before = os.fstat(2).st_size
    process = subprocess.Popen(plan["run"], env=env, stdin=subprocess.DEVNULL)
    while plan["began"] and not os.path.exists(plan["began"]):
        if process.poll() is not None:
            raise CannotStart(_words(plan["stderr"], before) or f"it ended with {process.poll()}")
        time.sleep(_LOOK_S)
    return process


def _have(plan: Table, env: Table) -> None:
    """Look for the image in the runtime's store, and fetch it where the site fetches any."""
    if not plan["missing"]:
        return
    code, words = _said(plan["missing"], env)
    if code == 0:
        return
    if code != 1:
        raise CannotStart(words)
    if not plan["fetch"]:
        raise CannotStart(plan["lacks"])
    code, words = _said(plan["fetch"], env)
    if code:
        raise CannotStart(f"the image cannot be fetched (E_IMAGE): {words}")


def _said(argv: list[str], env: Table) -> tuple[int, str]:
    """Run a command; return its exit code and the end of what it complains of."""
    done = subprocess.run(
        argv,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    return done.returncode, done.stderr.decode("utf-8", "replace").strip()[-_WORDS:]


def _environment(plan: Table) -> Table:
    """Return what the runtime itself sees, and write down what the payload sees.

    A variable of the payload never reaches the runtime under its own name: LD_PRELOAD and its
    like would run outside the container.
    """
    own = dict(plan["env"])
    own.update((name, os.environ[name]) for name in plan["passed"] if name in os.environ)
    if plan["env_file"]:
        with open(
            os.open(plan["env_file"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w"
        ) as file:
            file.writelines(f"{name}={value}\n" for name, value in own.items())
        return dict(os.environ, **plan["runtime_env"])
    prefixed = {plan["env_prefix"] + name: value for name, value in own.items()}
    return dict(os.environ, **plan["runtime_env"], **prefixed)


def _isolate(plan: Table) -> None:
    """Enter a user and a mount namespace of our own, with the runtime's state in memory."""
    uid, gid = os.geteuid(), os.getegid()
    if _LIBC.unshare(_NEW_USER | _NEW_MOUNTS):
        why = os.strerror(ctypes.get_errno())
        raise CannotStart(
            f"{os.uname().nodename} has no user namespaces for its users ({why}): see the sysctl "
            "user.max_user_namespaces there"
        )
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)
    _mount(None, "/", None, _RECURSIVE | _PRIVATE, None)
    _mount("tmpfs", plan["state"], "tmpfs", 0, "mode=700")
    # No control group is made in it, and crun will not start where v1 and v2 are mixed.
    _mount("tmpfs", "/sys/fs/cgroup", "tmpfs", 0, "mode=755")


def _mount(
    source: str | None, target: str, kind: str | None, flags: int, options: str | None
) -> None:
    texts = [None if text is None else text.encode() for text in (source, target, kind, options)]
    if _LIBC.mount(texts[0], texts[1], texts[2], flags, texts[3]):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def _beside(folder: str, plan: Table, command: list[str]) -> subprocess.Popen[bytes]:
    """Start a command in the payload's container."""
    if not plan["beside"]:
        raise CannotStart(f"{plan['run'][0]} starts no command beside a payload")
    with open(os.path.join(folder, "inside.json"), encoding="utf-8") as file:
        pid = json.load(file)["pid"]
    # What it leaves behind stays below it, to be ended with it.
    _LIBC.prctl(_SUBREAPER, 1, 0, 0, 0)
    for name in ("user", "mnt"):
        namespace = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY)
        if _LIBC.setns(namespace, 0):
            raise CannotStart(f"cannot enter its namespaces: {os.strerror(ctypes.get_errno())}")
        os.close(namespace)
    with open(plan["id"], encoding="utf-8") as file:
        container = file.read().strip()
    return subprocess.Popen([*plan["beside"], container, *command], stdin=subprocess.DEVNULL)


def _note(folder: str, content: Table) -> None:
    path = os.path.join(folder, "inside.json")
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(content, file)


def _words(path: str, start: int) -> str:
    """Return the end of what was written to a file since."""
    with open(path, "rb") as file:
        file.seek(start)
        return file.read().decode("utf-8", "replace").strip()[-_WORDS:]


def _ended(code: int) -> int:
    """Return an exit code; die by a signal that has ended the payload, as a process would."""
    number = -code if code < 0 else code - _BY_SIGNAL
    if number in set(signal.Signals):
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        time.sleep(1)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
