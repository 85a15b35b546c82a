"""What is asked of Slurm itself, and Slurm's own commands as one way to ask it.

Part of the program that `slurm_on_login` describes. `slurm_rest_queue` is the other way.
"""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
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

JOB_ID = re.compile(r"[0-9]+\Z")
_ROW_ID = re.compile(r"[0-9]+(_[0-9]+)?\Z")
_LARGEST_ARRAY = re.compile(r"^MaxArraySize\s*=\s*([0-9]+)\s*$", re.MULTILINE)
_FIELDS = ("JOBID", "NAME", "STATE", "REASON", "START_TIME", "NODELIST", "COMMENT")
_FORMAT = "%i|%j|%T|%r|%S|%N|%k"
_PARTITION = ("name", "up", "limit", "nodes", "cpus", "memory_mb", "gres")


class Trouble(Exception):
    """Something did not work.

    ``kind`` is transient, permanent, or refused where Slurm has answered, and says no.
    """

    def __init__(self, text: str, kind: str = "transient") -> None:
        super().__init__(text)
        self.kind = kind


class Queue(Protocol):
    """Slurm, as it is asked by whoever has the files of the attempts.

    Every method raises `Trouble` where no answer came, or one that means nothing: an answer is
    never made up, and nothing is asked twice.
    """

    def about(self) -> Table:
        """Tell of the site.

        Returns:
            ``slurm``, its version; ``partitions``, as sinfo has them; ``array``, how many
            elements an array may have, 0 where there are none by this way.
        """
        ...

    def submit(self, job: Table) -> str:
        """Submit a job and return its id.

        Args:
            job: ``options`` by sbatch's long names; the ``script``, its ``path`` and ``args``.
                With the option ``array`` it is an array of jobs, and has one id.

        Raises:
            Trouble: refused, or nobody knows whether it was accepted: look for it by its name.
        """
        ...

    def jobs(self) -> list[Table]:
        """Return all jobs of the user that bear a name of ours and that Slurm still knows.

        Each has ``id``, ``name``, ``state``, ``reason``, ``start`` and ``nodes``, as texts. An
        element of an array has its array's name, and that one's id and its index as ``7_0``.
        """
        ...

    def recorded(self, job_id: str) -> str:
        """Return the state that accounting has of a job that Slurm has forgotten, or nothing."""
        ...

    def cancel(self, job_id: str, *, force: bool = False) -> None:
        """End a job, with ``force`` at once; whether it has ended is seen by looking."""
        ...

    def wake(self, job_id: str) -> None:
        """Let a job look at what is asked of it now; it does so a moment later by itself."""
        ...


class CommandQueue:
    """See `Queue`: Slurm's own commands."""

    def __init__(self, asked: Table) -> None:
        self.folder, self.timeout_s = asked["bin"], asked["timeout_s"]
        names = ("HOME", "USER", "LOGNAME", "PATH", "LANG", "SHELL", "SLURM_CONF", "TMPDIR")
        # A job gets what is named here, not what happens to be set in this session.
        self.env = {name: os.environ[name] for name in names if name in os.environ}

    def _run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        program = os.path.join(self.folder, argv[0]) if self.folder else argv[0]
        try:
            return subprocess.run(
                (program, *argv[1:]),
                stdin=subprocess.DEVNULL,
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

    def about(self) -> Table:
        """See `Queue.about`."""
        version = self._run("sbatch", "--version")
        if version.returncode != 0:
            raise Trouble(f"sbatch does not work: {version.stderr.strip()[:300]}")
        lines = self._run("sinfo", "-h", "-o", "%P|%a|%l|%D|%c|%m|%G").stdout.splitlines()
        rows = [line.split("|") for line in lines]
        partitions = [dict(zip(_PARTITION, row)) for row in rows if len(row) == len(_PARTITION)]
        return {
            "slurm": version.stdout.strip(),
            "partitions": partitions,
            "array": self._largest_array(),
        }

    def _largest_array(self) -> int:
        try:
            found = _LARGEST_ARRAY.search(self._run("scontrol", "show", "config").stdout)
        except Trouble:
            return 0
        return int(found.group(1)) if found else 0

    def submit(self, job: Table) -> str:
        """See `Queue.submit`."""
        options = [f"--{name}={value}" for name, value in job["options"].items()]
        done = self._run(
            "sbatch", "--parsable", "--no-requeue", *options, job["path"], *job["args"]
        )
        found = done.stdout.strip().split(";")[0]
        if done.returncode == 0 and JOB_ID.match(found):
            return found
        said = (done.stderr or done.stdout).strip()[:500] or "it gives no job id"
        raise Trouble(f"sbatch refuses: {said}", "refused" if done.returncode else "transient")

    def jobs(self) -> list[Table]:
        """See `Queue.jobs`; an odd answer is none."""
        done = self._run("squeue", "-a", "-r", "-u", str(os.getuid()), "-t", "all", "-o", _FORMAT)
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
        return [job for job in found if job["name"].startswith(PREFIX) and _ROW_ID.match(job["id"])]

    def recorded(self, job_id: str) -> str:
        """See `Queue.recorded`."""
        done = self._run("sacct", "-n", "-X", "-P", "-j", job_id, "-o", "State")
        words = done.stdout.split()
        return words[0].rstrip("+") if done.returncode == 0 and words else ""

    def cancel(self, job_id: str, *, force: bool = False) -> None:
        """See `Queue.cancel`."""
        if force:
            self._run("scancel", "--full", "--signal=KILL", job_id)
        self._run("scancel", job_id)

    def wake(self, job_id: str) -> None:
        """See `Queue.wake`."""
        self._run("scancel", "--batch", "--signal=USR2", job_id)
