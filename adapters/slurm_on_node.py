"""The job itself: claims the attempt, runs its payload, and writes down how that ended.

Runs on a compute node, under whatever Python 3.8 or newer the site has, so it stands on the
standard library alone. Its one argument is the job's folder, which login node and compute nodes
share::

    launch.json   argv, environment and limits of the payload, private to the user
    claim         a link that nobody can make twice; its text says whose the attempt is
    began.json    since when the payload runs
    control.json  what the fabric asks of a running job
    answer.json   what has been done of it
    command-*     what commands beside the payload write, and how they ended
    exit.json     how it ended, made once

Whoever makes the claim first decides: a second job of the same attempt, a requeued one, or one
that starts after the attempt was terminated ends here, before the payload.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    Table = dict[str, Any]

_LOOK_S = 0.25
_UNSEEN_S = 60.0
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER
_HEARD = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD)
_CANNOT_EXECUTE = 127


def main(folder: str) -> int:
    """Run the attempt and return the exit status of the job."""
    array = "SLURM_ARRAY_JOB_ID" in os.environ
    name = "{SLURM_ARRAY_JOB_ID}_{SLURM_ARRAY_TASK_ID}" if array else "{SLURM_JOB_ID}"
    own = f"job.{name}.{{}}".format(os.environ.get("SLURM_RESTART_COUNT", "0"), **os.environ)
    claim = os.path.join(folder, "claim")
    try:
        os.symlink(own, claim)
    except FileExistsError:
        # The first answer of a network file system may be lost: then the claim is ours.
        if os.readlink(claim) != own:
            owner = os.readlink(claim)
            print("the attempt belongs to", owner)
            if owner.startswith(own.rpartition(".")[0] + "."):
                # Slurm starts a job again only when nothing of its first run is left.
                told = {"why": "requeued", "exit_code": None, "signal": None}
                write(folder, "exit.json", told, once=True)
            return 0
    with open(os.path.join(folder, "launch.json"), encoding="utf-8") as file:
        launch = json.load(file)
    return Job(folder, launch).run()


class Job:
    """One payload and everything it starts."""

    def __init__(self, folder: str, launch: Table) -> None:
        self.folder, self.launch = folder, launch
        self.why = ""
        self.pid = 0
        self.status: int | None = None
        self.cpu_s = 0.0
        self.kill_at: float | None = None
        self.frozen_since: float | None = None
        self.frozen_s = 0.0
        self.handled = 0
        self.oom_kills = 0
        self.largest = self.peak = 0
        self.commands: dict[int, str] = {}

    def run(self) -> int:
        """Run the payload to its end, or to the end of what it may use."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
        # What loses its parent becomes our child, so that nothing of the payload gets away.
        ctypes.CDLL(None, use_errno=True).prctl(_SUBREAPER, 1, 0, 0, 0)
        cgroup_kills = _cgroup_kills()
        outputs = (self.launch["stdout"], self.launch["stderr"])
        self.pid, error = self._start(self.launch["argv"], outputs, ())
        self.began, self.clock = time.time(), time.monotonic()
        if error:
            self.why = "exec"
        else:
            write(self.folder, "began.json", {"at": self.began, "host": os.uname().nodename})
            self._watch()
        self._kill_rest()
        self.oom_kills += max(0, _cgroup_kills() - cgroup_kills)
        self._finish(error)
        if self.status is None:
            return _CANNOT_EXECUTE
        told = _ended(self.status)
        return int(told["exit_code"] if told["signal"] is None else 128 + told["signal"])

    def _start(
        self, argv: list[str], outputs: tuple[str, ...], withheld: tuple[str, ...]
    ) -> tuple[int, str]:
        """Fork a program that runs as the payload does; return its pid, and why it does not.

        Returns once it has begun, which a container's may be some time after the fork.
        """
        launch = self.launch
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        streams = [os.open(name, flags, 0o600) for name in outputs]
        told, telling = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)
                signal.signal(signal.SIGPIPE, signal.SIG_DFL)
                if launch.get("open_files"):
                    resource.setrlimit(resource.RLIMIT_NOFILE, (launch["open_files"],) * 2)
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                os.dup2(streams[0], 1)
                os.dup2(streams[1], 2)
                os.chdir(launch["cwd"])
                env = dict(os.environ, **launch["env"])
                env = {name: env[name] for name in env if name not in withheld}
                if launch["starter"]:
                    os.set_inheritable(telling, True)  # noqa: FBT003 - its own
                    argv = [*launch["starter"], str(telling), *argv]
                os.execvpe(argv[0], argv, env)  # noqa: S606 - no shell reads it
            except Exception as exc:  # noqa: BLE001 - whatever it is, the parent has to hear of it
                os.write(telling, str(exc).encode("utf-8", "replace"))
            os._exit(_CANNOT_EXECUTE)
        for descriptor in (*streams, telling):
            os.close(descriptor)
        with os.fdopen(told, "rb") as file:
            return pid, file.read().decode("utf-8", "replace")

    def _execute(self, asked: Table) -> None:
        """Start a command beside the payload, unless it was started before."""
        name = "command-" + asked["command"]
        outputs = tuple(os.path.join(self.folder, name + end) for end in (".out", ".err"))
        try:
            os.close(os.open(outputs[0], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            return
        write(self.folder, name + ".seen", {})
        pid, error = self._start(asked["argv"], outputs, tuple(asked["withheld"]))
        self.commands[pid] = name
        if error:
            write(self.folder, name + ".end", {"error": error}, once=True)

    def _end(self, name: str, number: int) -> None:
        for pid, known in self.commands.items():
            if known == name:
                for below in (-pid, *_descendants(pid)):
                    with suppress(ProcessLookupError):
                        os.kill(below, number)

    def _abandon(self) -> None:
        """End the commands whose output nobody has fetched for a minute."""
        for name in list(self.commands.values()):
            with suppress(FileNotFoundError):
                seen = os.stat(os.path.join(self.folder, name + ".seen")).st_mtime
                if time.time() - seen > _UNSEEN_S:
                    self._end(name, signal.SIGKILL)

    def _watch(self) -> None:
        while self.status is None:
            heard = signal.sigtimedwait(_HEARD, _LOOK_S)
            number = heard.si_signo if heard is not None else 0
            if self._reap():
                self._ask_why(number)
                return
            self._obey()
            if number in (signal.SIGTERM, signal.SIGINT):
                # From Slurm or a person; its state says which. It kills soon after.
                self._stop("slurm", self.launch["grace_s"])
            elif number == signal.SIGUSR1:
                self._stop("wall", self.launch["grace_s"])
            self._limit()
            self._abandon()
            if self.kill_at is not None and time.monotonic() >= self.kill_at:
                self._kill_rest()

    def _ask_why(self, heard: int) -> None:
        """Find out whether Slurm, which signals all processes, has ended the payload."""
        if self.why or self.status is None or not os.WIFSIGNALED(self.status):
            return
        if heard == signal.SIGTERM or signal.sigtimedwait((signal.SIGTERM,), _LOOK_S):
            self.why = "slurm"

    def _obey(self) -> None:
        try:
            with open(os.path.join(self.folder, "control.json"), encoding="utf-8") as file:
                asked = json.load(file)
        except (OSError, ValueError):
            return
        if asked["turn"] <= self.handled:
            return
        self.handled = asked["turn"]
        if asked["action"] == "stop":
            self._stop("terminated", asked["grace_s"])
        elif asked["action"] == "execute" and self.frozen_since is None:
            self._execute(asked)
        elif asked["action"] == "end":
            self._end("command-" + asked["command"], asked["signal"])
        elif asked["action"] == "pause" and self.frozen_since is None:
            self.frozen_since = time.monotonic()
            self._signal_all(signal.SIGSTOP)
        elif asked["action"] == "resume":
            self._thaw()
        frozen = self.frozen_since is not None
        answer = {"turn": self.handled, "paused": frozen, "paused_s": self.frozen_s}
        write(self.folder, "answer.json", answer)

    def _stop(self, why: str, grace_s: float) -> None:
        kill_at = time.monotonic() + grace_s
        if self.why:
            # Who asks later may ask for less patience, never for more.
            self.kill_at = min(kill_at, self.kill_at or kill_at)
            return
        self.why, self.kill_at = why, kill_at
        self._signal_group(signal.SIGTERM)
        self._thaw()

    def _thaw(self) -> None:
        if self.frozen_since is not None:
            self.frozen_s += time.monotonic() - self.frozen_since
            self.frozen_since = None
            self._signal_all(signal.SIGCONT)

    def _limit(self) -> None:
        now = time.monotonic()
        frozen = self.frozen_s + (now - self.frozen_since if self.frozen_since else 0.0)
        wall_s, memory = self.launch.get("wall_s"), self.launch.get("memory_bytes")
        if wall_s is not None and not self.why and now - self.clock - frozen >= wall_s:
            self._stop("wall", self.launch["grace_s"])
        if memory is not None:
            contained = bool(self.launch["starter"])
            used = sum(_memory(pid, contained) for pid in _descendants(os.getpid()))
            self.peak = max(self.peak, used)
            if used > memory:
                self.oom_kills += 1
                self.why = self.why or "oom"
                self._kill_rest()

    def _reap(self) -> bool:
        """Bury the dead; say whether the payload is among them."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return self.status is not None
            if pid == 0:
                return self.status is not None
            self.cpu_s += usage.ru_utime + usage.ru_stime
            if pid == self.pid:
                self.status = status
                # Of a container it is the runtime's own, not the payload's.
                self.largest = 0 if self.launch["starter"] else usage.ru_maxrss * 1024
            elif pid in self.commands:
                write(self.folder, self.commands.pop(pid) + ".end", _ended(status), once=True)

    def _kill_rest(self) -> None:
        """Kill every process that the payload has started, until none is left."""
        while True:
            self._reap()
            if not self._signal_all(signal.SIGKILL):
                return
            time.sleep(0.01)

    def _signal_group(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def _signal_all(self, number: int) -> bool:
        """Signal all descendants, also those that are started meanwhile; say whether there are."""
        reached: set[int] = set()
        while new := _descendants(os.getpid()) - reached:
            for pid in new:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            reached |= new
        return bool(reached)

    def _finish(self, error: str) -> None:
        memory = self.launch.get("memory_bytes")
        if memory is not None and self.largest > memory and not self.oom_kills:
            # A short peak, which no look has met.
            self.oom_kills = 1
        told: Table = {
            "why": self.why,
            "error": error,
            "began": self.began,
            "ended": time.time(),
            "cpu_s": None if self.status is None else self.cpu_s,
            "max_rss_bytes": max(self.peak, self.largest) or None,
            "oom_kills": self.oom_kills,
            "paused_s": self.frozen_s,
        }
        told.update(_ended(None if error else self.status))
        if self.why == "slurm":
            # Only Slurm knows why it asked, and what else it has done by then.
            write(self.folder, "asked.json", told)
            return
        write(self.folder, "exit.json", told, once=True)


def write(folder: str, name: str, content: Table, *, once: bool = False) -> bool:
    """Write a whole JSON file, private, and say so; with ``once``, what is there already stays."""
    path = os.path.join(folder, name)
    part = f"{path}.{os.uname().nodename}.{os.getpid()}.{threading.get_ident()}"
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    if not once:
        os.replace(part, path)
        return True
    try:
        os.link(part, path)
    except FileExistsError:
        return False
    finally:
        os.unlink(part)
    return True


def _ended(status: int | None) -> Table:
    """Return a wait status as exit code and signal, of which one is None."""
    killed = status is not None and os.WIFSIGNALED(status)
    return {
        "exit_code": None if status is None or killed else os.WEXITSTATUS(status),
        "signal": os.WTERMSIG(status) if status is not None and killed else None,
    }


def _descendants(of: int) -> set[int]:
    """Return every process below another one that is not a zombie."""
    children: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b") ")[2].split()
        except OSError:
            continue
        if fields[0] not in (b"Z", b"X"):
            children.setdefault(int(fields[1]), []).append(int(name))
    found: set[int] = set()
    left = [of]
    while left:
        for pid in children.get(left.pop(), ()):
            found.add(pid)
            left.append(pid)
    return found


def _memory(pid: int, contained: bool) -> int:  # noqa: FBT001 - one caller
    """Return the bytes of a process with its share of what it shares; none of a runtime's own."""
    found: dict[bytes, bytes] = {}
    for name in ("status", "smaps_rollup"):
        with suppress(OSError), open(f"/proc/{pid}/{name}", "rb") as file:
            for line in file:
                key, _, value = line.partition(b":")
                found[key] = value
    if contained and len(found.get(b"NSpid", b"").split()) < 2:  # noqa: PLR2004 - not in a container
        return 0
    return int((found.get(b"Pss") or found.get(b"VmRSS") or b"0").split()[0]) * 1024


def _cgroup_kills() -> int:
    """Return how many processes the kernel has killed for memory in this job's cgroup."""
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            lines = [line.strip().split(":", 2) for line in file]
    except OSError:
        return 0
    for _, controllers, path in lines:
        if controllers == "":
            name = f"/sys/fs/cgroup{path}/memory.events"
        elif "memory" in controllers.split(","):
            name = f"/sys/fs/cgroup/memory{path}/memory.oom_control"
        else:
            continue
        try:
            with open(name, encoding="utf-8") as file:
                for line in file:
                    if line.startswith("oom_kill "):
                        return int(line.split()[1])
        except OSError:
            continue
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
