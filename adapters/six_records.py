"""What a host remembers of the jobs behind an adapter of six methods, so that none runs twice.

One file an attempt below ``FABRIC_HOME/adapters/<backend>``, and a lock beside it that is held
around every call about the attempt, by threads of this worker and by other processes alike.
"""

from __future__ import annotations

import fcntl
import json
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from temporal_fabric import durable

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

INTENT, RUNNING, ENDED, LOST, FORBIDDEN = "intent", "running", "ended", "lost", "forbidden"
_KEEP_S = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class JobRecord:
    """One attempt."""

    state: str
    job_id: str = ""
    log: str = ""
    """File that takes its output."""

    wall_s: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    exit_code: int | None = None
    reason: str = ""
    message: str = ""
    forgotten: bool = False

    @property
    def live(self) -> bool:
        """Whether it may still run."""
        return self.state in {INTENT, RUNNING}


class JobRecords:
    """The records of one backend.

    Args:
        folder: Where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def locked(self, key: str) -> Generator[None]:
        """Let nobody else work on an attempt meanwhile."""
        durable.make_folder(self._folder)
        with (self._folder / f"{key}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def read(self, key: str) -> JobRecord | None:
        """Return what is known of an attempt.

        Raises:
            ValueError: its file is damaged.
        """
        try:
            return JobRecord(**json.loads(self._path(key).read_bytes()))
        except FileNotFoundError:
            return None
        except TypeError as exc:
            raise ValueError(f"no record of a job [path={self._path(key)}]: {exc}") from exc

    def write(self, key: str, record: JobRecord) -> None:
        """Remember it, durably."""
        durable.replace(self._path(key), json.dumps(asdict(record)).encode())

    def all(self) -> Iterator[JobRecord]:
        """Yield every record; what was forgotten long ago is removed on the way."""
        for path in self._folder.glob("*.json"):
            found = self.read(path.stem)
            if found is None:
                continue
            if found.forgotten and time.time() - path.stat().st_mtime > _KEEP_S:
                path.unlink(missing_ok=True)
                path.with_suffix(".lock").unlink(missing_ok=True)
                continue
            yield found

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"
