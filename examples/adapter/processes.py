"""An adapter in less than a hundred lines: programs as processes of this host.

Six methods are all it takes; the fabric adds what durable execution needs around them. What
this one has to get right itself: a job is found by its id alone, in any process, and `terminate`
leaves nothing behind.
"""

import os
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from temporal_fabric.adapters.six_methods import JobStatus
from temporal_fabric.requests.models import ExecutionRequest

MARK = "PROCESSES_JOB"
GRACE_S = 5.0

# The shell outlives this process and writes down how the program ended. It hears SIGTERM as
# everybody in the job does, and waits for the program's own answer.
RUN = 'trap : TERM; "$@"; code=$?; echo $code > "$0/exit.new"; mv "$0/exit.new" "$0/exit"'


class Processes:
    """Runs `process` payloads; the job's id is the folder in which its files lie.

    Args:
        folder: Where the jobs' folders go.
    """

    def __init__(self, folder: str = "") -> None:
        self._folder = Path(folder or tempfile.gettempdir(), f"processes-{os.getuid()}")

    def get_name(self) -> str:
        """Return a name for people."""
        return "processes-v1"

    def can_fulfill(self, req: ExecutionRequest) -> bool:
        """Programs, where nothing but a place is asked for."""
        return req.payload.process is not None and not req.requirements.resources

    def submit(self, req: ExecutionRequest) -> JobStatus:
        """Start the program in a session of its own, so that it outlives the worker."""
        program = req.payload.process
        if program is None:
            raise ValueError("only process payloads")
        job = self._folder / uuid.uuid4().hex
        job.mkdir(parents=True, mode=0o700)
        env = {name: os.environ[name] for name in ("HOME", "PATH", "LANG") if name in os.environ}
        env |= program.env | {MARK: job.name}
        with (job / "log").open("wb") as log:
            subprocess.run(
                ["setsid", "--fork", "sh", "-c", RUN, str(job), *program.command],
                cwd=env.get("FABRIC_TASK_DIR", job),
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=True,
            )
        return JobStatus(str(job), "RUNNING")

    def get_status(self, job_id: str) -> JobStatus:
        """Ask the exit file first, then the process table, and the file last."""
        for looks in (3, 2, 1, 0):  # what becomes another program has no mark for a moment
            with suppress(FileNotFoundError):
                code = int(Path(job_id, "exit").read_text())
                return JobStatus(job_id, "FAILED" if code else "SUCCEEDED", code)
            if looks and any(_marked(Path(job_id).name)):
                return JobStatus(job_id, "RUNNING")
        return JobStatus(job_id, "FAILED", message="killed, or the host was restarted")

    def stream_logs(self, job_id: str) -> Iterator[str]:
        """Yield the log so far."""
        yield Path(job_id, "log").read_text(errors="replace")

    def terminate(self, job_id: str) -> None:
        """SIGTERM to all of the job, a few seconds, SIGKILL until nothing is left."""
        deadline, number = time.monotonic() + GRACE_S, int(signal.SIGTERM)
        while pids := list(_marked(Path(job_id).name)):
            for pid in pids if number else ():
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            time.sleep(0.05)
            number = signal.SIGKILL if time.monotonic() > deadline else 0


def _marked(job: str) -> Iterator[int]:
    """Yield the processes that have the job's mark, also those that left its session."""
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            marks = (path / "environ").read_bytes().split(b"\0")  # empty for a zombie
            if f"{MARK}={job}".encode() in marks:
                yield int(path.name)
