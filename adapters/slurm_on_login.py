"""What the fabric does on a login node: submit once, look, stop, forget.

Sent whole with every call and run by the site's Python 3.8 or newer, so it stands on the standard
library alone and nothing has to be installed. It answers one request behind a mark that no
greeting of a login shell has. Everything is kept in files that login and compute nodes share;
what decides is said in `slurm_on_node`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import stat
import sys
import time
from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters.slurm_on_login_jobs import FORBIDDEN, PIECE, Attempt, jobs_of
from temporal_fabric.adapters.slurm_on_login_queue import LIVE, CommandQueue, Trouble
from temporal_fabric.adapters.slurm_on_login_submit import Submission

if TYPE_CHECKING:
    from collections.abc import Iterator

    from temporal_fabric.adapters.slurm_on_login_queue import Queue

    Table = dict[str, Any]

MARK = "temporal-fabric"
_MEMORY = re.compile(
    r"oom[-_ ]?kill|out[- ]of[- ]memory|exceeded (?:job |step )?memory limit", re.IGNORECASE
)
_KEPT_S = 30 * 86400.0
_LOOK_S = 0.1


class Desk:
    """Answers one request."""

    def __init__(self, asked: Table, queue: Queue) -> None:
        self.asked = asked
        self.queue = queue
        folder = os.path.expanduser(asked["folder"])
        self.base = os.path.join(os.path.expanduser("~"), folder, asked["owner"])
        self.settle_s = asked["settle_s"]

    def answer(self) -> Any:
        """Do what is asked."""
        return getattr(self, "do_" + self.asked["verb"])()

    def do_hello(self) -> Table:
        """Tell what this site has."""
        os.makedirs(os.path.join(self.base, "jobs"), mode=0o700, exist_ok=True)
        probe = os.path.join(self.base, f".probe.{os.getpid()}")
        os.symlink("probe", probe)
        os.unlink(probe)
        usage = shutil.disk_usage(self.base)
        return {
            "base": self.base,
            "user": os.environ.get("USER", ""),
            "host": os.uname().nodename,
            "python": "{}.{}.{}".format(*sys.version_info[:3]),
            **self.queue.about(),
            "running": sum(1 for job in self._mine() if job["state"] in LIVE),
            "free_bytes": usage.free,
            "lacking": list(self._lacking()),
        }

    def _lacking(self) -> Iterator[str]:
        """Tell what containers need and this node has not; the others may have it all the same."""
        node, folder = os.uname().nodename, self.asked.get("image_folder", "")
        for name in self.asked.get("programs", ()):
            if shutil.which(name) is None:
                yield f"there is no {name} on {node}: install it on all nodes"
        if folder and not os.path.isdir(folder):
            yield f"there is no folder {folder} on {node}: put the images there, see image_folder"
        if folder and not _number("/proc/sys/user/max_user_namespaces", 1):
            yield f"{node} has no user namespaces: raise the sysctl user.max_user_namespaces"

    def _mine(self) -> list[Table]:
        """Return the jobs of this fabric that have not written down how they ended."""
        folder = os.path.join(self.base, "jobs")
        known = set(os.listdir(folder))
        own = [job for job in self._jobs() if job["name"] in known]
        return [
            job for job in own if not os.path.exists(os.path.join(folder, job["name"], "exit.json"))
        ]

    def do_look(self) -> Table:
        """Tell what is known of some attempts; only reads, and settles what has ended."""
        try:
            jobs, trouble = self._jobs(), ""
        except Trouble as exc:
            jobs, trouble = [], str(exc)
        return {name: self._look(name, jobs, trouble) for name in self.asked["names"]}

    def _look(self, name: str, jobs: list[Table], trouble: str) -> Table:
        attempt = Attempt(self.base, name)
        own = [job for job in jobs if job["name"] == name]
        seen: Table = {"claim": attempt.claim(), "exit": attempt.read("exit.json") or None}
        seen["id"] = attempt.job_id() or (own[-1]["id"] if own else "")
        if seen["claim"] == FORBIDDEN or seen["exit"]:
            return dict(seen, **self._files(attempt))
        if trouble:
            return {"trouble": trouble}
        job = next((job for job in own if job["id"] == seen["id"]), own[-1] if own else None)
        if job is None and not seen["id"]:
            return dict(seen, known=False)
        if job is None or job["state"] not in LIVE:
            seen["exit"] = self._settle(attempt, seen["id"], job) or None
        return dict(
            seen,
            job=job,
            began=attempt.read("began.json").get("at"),
            answer=attempt.read("answer.json"),
            **self._files(attempt),
        )

    def _settle(self, attempt: Attempt, job_id: str, job: Table | None) -> Table:
        """Return the end of a job that wrote none, once there is no doubt that it will not."""
        ending = attempt.read("ending.json")
        state = job["state"] if job else ending.get("state") or self.queue.recorded(job_id)
        if state in LIVE:
            return {}
        if not ending or state != ending["state"]:
            attempt.write("ending.json", {"state": state or "UNKNOWN", "at": time.time()})
            ending = attempt.read("ending.json")
        if time.time() - ending["at"] < self.settle_s:
            return {}
        why = "terminated" if attempt.read("stopping.json") else ""
        told: Table = {"why": why, "error": "", "exit_code": None, "signal": None}
        told.update(attempt.read("asked.json"))
        told.update(native=ending["state"], began=attempt.read("began.json").get("at"))
        told.setdefault("ended", ending["at"])
        words = attempt.words()
        told.update(claimed=bool(attempt.claim()), words=words)
        told["memory"] = bool(_MEMORY.search(words))
        if not told["claimed"]:
            attempt.forbid()
        attempt.write("exit.json", told, once=True)
        return attempt.read("exit.json")

    def _files(self, attempt: Attempt) -> Table:
        """Tell where the attempt's files lie, and how long those are that grow."""
        found: Table = {}
        folder = attempt.place()
        for name in self.asked["grows"] if folder else ():
            try:
                found[name] = os.stat(os.path.join(folder, name)).st_size
            except OSError:
                continue
        return {"folder": folder, "sizes": found}

    def do_prepare(self) -> Table:
        """See `Submission.prepare`."""
        return Submission(self.base, self.asked, self.queue).prepare()

    def do_submit(self) -> Table:
        """See `Submission.submit`."""
        return Submission(self.base, self.asked, self.queue).submit()

    def do_submit_array(self) -> Table:
        """See `Submission.submit_array`."""
        return Submission(self.base, self.asked, self.queue).submit_array()

    def _jobs(self) -> list[Table]:
        return jobs_of(self.queue, self.base)

    def do_stop(self) -> Table:
        """Stop an attempt and wait some time for the proof; what is left is for the next call."""
        asked = self.asked
        attempt = Attempt(self.base, asked["name"])
        if attempt.forbid() == FORBIDDEN:
            for job in self._jobs():
                if job["name"] == attempt.name and job["state"] in LIVE:
                    self.queue.cancel(job["id"])
            return self._look(attempt.name, [], "")
        since = attempt.read("stopping.json").get("at")
        if since is None and not attempt.read("exit.json"):
            since = time.time()
            attempt.write("stopping.json", {"at": since})
            self._ask(attempt, {"action": "stop", "grace_s": asked["grace_s"]})
        deadline = time.monotonic() + asked["patience_s"]
        while True:
            seen = self._gone(attempt, since, asked)
            if seen is not None:
                return seen
            if time.monotonic() > deadline:
                return self._look(attempt.name, self._jobs(), "")
            time.sleep(_LOOK_S)

    def _gone(self, attempt: Attempt, since: float | None, asked: Table) -> Table | None:
        """Return what is known once the job is gone; else end it by force when its time is up."""
        jobs = self._jobs()
        seen = self._look(attempt.name, jobs, "")
        live = [job for job in jobs if job["name"] == attempt.name and job["state"] in LIVE]
        # The word of a job is proof for its own node; of the others only Slurm knows.
        if seen["exit"] and not (live and attempt.read("launch.json").get("gang")):
            return seen
        if live and since is not None and time.time() - since > asked["grace_s"] + asked["force_s"]:
            for job in live:
                self.queue.cancel(job["id"], force=True)
        return None

    def do_control(self) -> Table:
        """Ask something of a running job and wait for its answer."""
        attempt = Attempt(self.base, self.asked["name"])
        claim = attempt.claim()
        control = self.asked["control"]
        if control["action"] == "pause" and attempt.read("launch.json").get("gang"):
            raise Trouble("a job of several members cannot stand still", "permanent")
        begun = "command-{}.out".format(control.get("command"))
        again = control["action"] == "execute" and os.path.exists(attempt.path(begun))
        if claim.startswith("job.") and not attempt.read("exit.json") and not again:
            # One at a time: what is asked next would take the place of what was not read yet.
            with attempt.lock("asking"):
                turn = self._ask(attempt, control)
                deadline = time.monotonic() + self.asked["patience_s"]
                while attempt.read("answer.json").get("turn", 0) < turn:
                    if attempt.read("exit.json"):
                        break
                    if time.monotonic() > deadline:
                        raise Trouble("the job has not answered yet")
                    time.sleep(_LOOK_S)
        return self._look(attempt.name, self._jobs(), "")

    def _ask(self, attempt: Attempt, control: Table) -> int:
        with attempt.lock():
            turn = int(attempt.read("control.json").get("turn", 0)) + 1
            attempt.write("control.json", dict(control, turn=turn))
        # Only wakes the job, which looks by itself a moment later.
        self.queue.wake(attempt.job_id())
        return turn

    def do_fetch(self) -> Table:
        """Return what a command has written since, and whether it has ended."""
        attempt = Attempt(self.base, self.asked["name"])
        name = "command-" + self.asked["command"]
        if not os.path.exists(attempt.path(name + ".out")):
            raise Trouble("no such command is known", "permanent")
        attempt.write(name + ".seen", {})
        deadline = time.monotonic() + self.asked["patience_s"]
        while True:
            # An end that is seen first leaves no output behind that is not read.
            end = attempt.read(name + ".end")
            if not end and attempt.read("exit.json"):
                end = {"error": "it ended with the payload"}
            outputs = zip((".out", ".err"), self.asked["offsets"])
            pieces = [attempt.piece(name + tail, at) for tail, at in outputs]
            if end or any(pieces) or time.monotonic() > deadline:
                full = [base64.b64encode(piece).decode() for piece in pieces]
                more = any(len(piece) == PIECE for piece in pieces)
                return {"pieces": full, "end": None if more else end or None}
            time.sleep(_LOOK_S)

    def do_digest(self) -> str:
        """Return the SHA-256 of a file's first bytes."""
        found, left = hashlib.sha256(), self.asked["count"]
        with open(self.asked["path"], "rb") as file:
            while left > 0:
                chunk = file.read(min(PIECE, left))
                if not chunk:
                    break
                found.update(chunk)
                left -= len(chunk)
        return found.hexdigest()

    def do_list(self) -> Table:
        """List what lies below the folders, without following any link."""
        limit = Attempt(self.base, self.asked["name"]).read("launch.json").get("output_bytes")
        found = {root: list(_walk(root, "")) for root in self.asked["roots"]}
        return {"limit": limit, "found": found}

    def do_forget(self) -> Table:
        """Drop the files of an ended attempt; its claim stays, for some weeks."""
        attempt = Attempt(self.base, self.asked["name"])
        if not attempt.forbid().startswith("job.") or attempt.read("exit.json"):
            folder = attempt.place()
            if folder:
                shutil.rmtree(folder, ignore_errors=True)
                self._free_request(os.path.dirname(folder))
            array = attempt.array()
            for name in os.listdir(attempt.folder):
                if name not in ("claim", "exit.json", "lock", "asking"):
                    os.unlink(attempt.path(name))
            if array is not None:
                array[0].leave(array[1])
            self._prune()
            return {}
        raise Trouble("the job has not ended")

    def _free_request(self, place: str) -> None:
        """Drop the checkpoints once no epoch of the experiment is left."""
        try:
            if os.listdir(place) == ["checkpoints"]:
                shutil.rmtree(place, ignore_errors=True)
        except FileNotFoundError:
            pass

    def _prune(self) -> None:
        jobs, oldest = os.path.join(self.base, "jobs"), time.time() - _KEPT_S
        for name in os.listdir(jobs):
            folder = os.path.join(jobs, name)
            if not Attempt(self.base, name).place() and os.stat(folder).st_mtime < oldest:
                shutil.rmtree(folder, ignore_errors=True)


def _number(path: str, default: int) -> int:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except OSError:
        return default


def _walk(root: str, below: str) -> Iterator[list[Any]]:
    folder = os.path.join(root, below)
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    for entry in entries:
        path = os.path.join(below, entry.name)
        info = entry.stat(follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode):
            yield [path, "folder", 0, 0]
            for found in _walk(root, path):
                yield found
        elif stat.S_ISREG(info.st_mode):
            yield [path, "file", info.st_size, info.st_mtime_ns]
        else:
            yield [path, "other", 0, 0]


def answered(asked: Table, queue: Queue) -> Table:
    """Answer one request: ``ok`` with what was found, or ``trouble`` and its ``kind``."""
    try:
        told = {"ok": Desk(asked, queue).answer()}
    except Trouble as exc:
        told = {"trouble": str(exc), "kind": exc.kind}
    except (OSError, ValueError, KeyError, AttributeError) as exc:
        told = {"trouble": f"{type(exc).__name__}: {exc}", "kind": "transient"}
    return told


def main(asked: Table) -> None:
    """Answer one request on standard output."""
    told = dict(answered(asked, CommandQueue(asked)), turn=asked["turn"])
    sys.stdout.write(f"\n{MARK} {json.dumps(told)}\n")
    sys.stdout.flush()
