"""Slurm's commands and the files of one attempt, as a login node has them.

Part of the program that `slurm_on_login` describes.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import time
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator

    Table = dict[str, Any]

PREFIX = "fab-"
LIVE = [
    "PENDING",
    "CONFIGURING",
    "RUNNING",
    "COMPLETING",
    "SUSPENDED",
    "STOPPED",
    "SIGNALING",
    "STAGE_OUT",
    "RESIZING",
    "REQUEUED",
    "REQUEUE_FED",
    "REQUEUE_HOLD",
    "RESV_DEL_HOLD",
    "SPECIAL_EXIT",
]
"""States of a job that may still run something."""

FORBIDDEN = "forbidden"
"""The claim of an attempt that no job may have any more."""

PIECE = 1 << 17
"""Bytes of a command's output that are fetched at once."""

_FIELDS = ("JOBID", "NAME", "STATE", "REASON", "START_TIME", "NODELIST", "COMMENT")
_FORMAT = "%i|%j|%T|%r|%S|%N|%k"
JOB_ID = re.compile(r"[0-9]+\Z")
_LOCK_S = 20.0
_LOOK_S = 0.1


class Trouble(Exception):
    """Something did not work; ``kind`` is transient or permanent."""

    def __init__(self, text: str, kind: str = "transient") -> None:
        super().__init__(text)
        self.kind = kind


class Slurm:
    """Slurm's own commands."""

    def __init__(self, asked: Table) -> None:
        self.folder, self.timeout_s = asked["bin"], asked["timeout_s"]
        names = ("HOME", "USER", "LOGNAME", "PATH", "LANG", "SHELL", "SLURM_CONF", "TMPDIR")
        # A job gets what is named here, not what happens to be set in this session.
        self.env = {name: os.environ[name] for name in names if name in os.environ}

    def run(self, *argv: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command and return what it said."""
        program = os.path.join(self.folder, argv[0]) if self.folder else argv[0]
        try:
            return subprocess.run(
                (program, *argv[1:]),
                input=text,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                timeout=self.timeout_s,
                env=self.env,
                check=False,
            )
        except FileNotFoundError as exc:
            raise Trouble(f"there is no {program}: set the option 'bin' to its folder") from exc
        except subprocess.TimeoutExpired as exc:
            raise Trouble(f"{argv[0]} has not answered in {self.timeout_s} s") from exc
        except OSError as exc:
            raise Trouble(f"{argv[0]} cannot be run: {exc}") from exc

    def jobs(self) -> list[Table]:
        """Return all jobs of this user that Slurm still knows; an odd answer is none."""
        done = self.run("squeue", "-a", "-u", str(os.getuid()), "-t", "all", "-o", _FORMAT)
        lines = done.stdout.splitlines()
        # The header proves that an empty list is an answer.
        if done.returncode != 0 or not lines or tuple(lines[0].split("|")) != _FIELDS:
            said = (done.stderr or done.stdout).strip()[:300] or "no header"
            raise Trouble(f"squeue gives no list: {said}")
        found: list[Table] = []
        for line in lines[1:]:
            fields = line.split("|", len(_FIELDS) - 1)
            if len(fields) != len(_FIELDS):
                raise Trouble(f"squeue gives an odd line: {line[:200]}")
            found.append(dict(zip(("id", "name", "state", "reason", "start", "nodes"), fields)))
        return [job for job in found if job["name"].startswith(PREFIX) and JOB_ID.match(job["id"])]

    def recorded(self, job_id: str) -> str:
        """Return the state that accounting has of a job that squeue has forgotten, or nothing."""
        done = self.run("sacct", "-n", "-X", "-P", "-j", job_id, "-o", "State")
        words = done.stdout.split()
        return words[0].rstrip("+") if done.returncode == 0 and words else ""


class Attempt:
    """The files of one attempt."""

    def __init__(self, base: str, name: str) -> None:
        self.name = name
        self.folder = os.path.join(base, "jobs", name)

    def path(self, name: str) -> str:
        """Return the path of one of its files."""
        return os.path.join(self.folder, name)

    def read(self, name: str) -> Table:
        """Return a JSON file; an empty one where it is not there."""
        try:
            with open(self.path(name), encoding="utf-8") as file:
                found: Table = json.load(file)
                return found
        except FileNotFoundError:
            return {}

    def claim(self) -> str:
        """Return whose the attempt is, or nothing."""
        try:
            return os.readlink(self.path("claim"))
        except FileNotFoundError:
            return ""

    def job_id(self) -> str:
        """Return the id of its job as far as it is known, or nothing."""
        claim = self.claim()
        if claim.startswith("job."):
            return claim.split(".")[1]
        return str(self.read("id.json").get("id", ""))

    def write(self, name: str, content: Table, *, once: bool = False) -> None:
        """Write a whole JSON file, private; with ``once``, what is there already stays."""
        path = self.path(name)
        part = f"{path}.{os.uname().nodename}.{os.getpid()}"
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        if not once:
            os.replace(part, path)
            return
        try:
            os.link(part, path)
        except FileExistsError:
            pass
        finally:
            os.unlink(part)

    @contextmanager
    def lock(self, name: str = "lock") -> Generator[None, None, None]:
        """Lock the attempt on this login node; the claim holds across several."""
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        deadline = time.monotonic() + _LOCK_S
        with open(self.path(name), "w", encoding="utf-8") as file:
            while not _locked(file):
                if time.monotonic() > deadline:
                    raise Trouble("another call holds the attempt's lock")
                time.sleep(_LOOK_S)
            yield

    def forbid(self) -> str:
        """Claim the attempt for nobody, unless it has an owner; return whose it is then."""
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        with suppress(FileExistsError):
            os.symlink(FORBIDDEN, self.path("claim"))
        return self.claim()

    def piece(self, name: str, offset: int) -> bytes:
        """Return the next piece of a file."""
        try:
            with open(self.path(name), "rb") as file:
                file.seek(offset)
                return file.read(PIECE)
        except FileNotFoundError:
            return b""

    def words(self) -> str:
        """Return the end of what Slurm itself wrote to the job's output."""
        try:
            with open(self.path("slurm.log"), "rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - 2000))
                return file.read().decode("utf-8", "replace").strip()
        except FileNotFoundError:
            return ""


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
