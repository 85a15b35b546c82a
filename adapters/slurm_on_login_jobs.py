"""The files of one attempt or one array, in the folder that login and compute nodes share.

Part of the program that `slurm_on_login` describes.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

from temporal_fabric.adapters.slurm_on_login_queue import Trouble
from temporal_fabric.adapters.slurm_on_node import write

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from temporal_fabric.adapters.slurm_on_login_queue import Queue

    Table = dict[str, Any]

FORBIDDEN = "forbidden"
"""The claim of an attempt that no job may have any more."""

PIECE = 1 << 17
"""Bytes of a command's output that are fetched at once."""

_LOCK_S = 20.0
_LOOK_S = 0.1


class Record:
    """Files that belong together."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

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

    def write(self, name: str, content: Table, *, once: bool = False) -> bool:
        """Write a whole JSON file, private, and say so; with ``once``, what is there stays.

        A file that is made once is there for good when this returns.
        """
        made = write(self.folder, name, content, once=once)
        if once:
            sync(self.folder)
        return made

    @contextmanager
    def lock(self, name: str = "lock") -> Generator[None, None, None]:
        """Lock it on this login node; the claim of an attempt holds across several."""
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        deadline = time.monotonic() + _LOCK_S
        with open(self.path(name), "w", encoding="utf-8") as file:
            while not _locked(file):
                if time.monotonic() > deadline:
                    raise Trouble("another call holds the attempt's lock")
                time.sleep(_LOOK_S)
            yield


class Attempt(Record):
    """The files of one attempt."""

    def __init__(self, base: str, name: str) -> None:
        super().__init__(os.path.join(base, "jobs", name))
        self.base, self.name = base, name

    def put(self, folder: str) -> None:
        """Keep where its files lie."""
        with suppress(FileExistsError):
            os.symlink(folder, self.path("place"))

    def place(self) -> str:
        """Return where its files lie, or nothing."""
        try:
            return os.readlink(self.path("place"))
        except FileNotFoundError:
            return ""

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
        return str(self.read("id.json").get("id", "")) or self._element()

    def array(self) -> tuple[Array, int] | None:
        """Return the array that it was to be submitted with, and its index there."""
        launch = self.read("launch.json")
        return (Array(self.base, launch["array"]), launch["index"]) if "array" in launch else None

    def _element(self) -> str:
        found = self.array()
        if found is None:
            return ""
        array, index = found
        done = array.read("id.json")
        return "{}_{}".format(done["id"], index) if index in done.get("indexes", ()) else ""

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


class Array(Record):
    """The files of one array; see `slurm_on_login_submit`."""

    def __init__(self, base: str, name: str) -> None:
        super().__init__(os.path.join(base, "arrays", name))
        self.name = name

    def link(self, names: list[str]) -> None:
        """Lead to its attempts by index."""
        for index, name in enumerate(names):
            with suppress(FileExistsError):
                os.symlink(os.path.join("..", "..", "jobs", name), self.path(str(index)))
        sync(self.folder)

    def _attempts(self) -> Iterator[tuple[int, str]]:
        for name in filter(str.isdigit, os.listdir(self.folder)):
            yield int(name), os.readlink(self.path(name))

    def enlisted(self) -> list[int]:
        """Return the indexes of the attempts that may run, and no other way than with it."""
        found: list[int] = []
        for index, _ in self._attempts():
            attempt = Record(self.path(str(index)))
            launch = attempt.read("launch.json")
            free = not os.path.lexists(attempt.path("claim"))
            if free and (launch.get("array"), launch.get("index")) == (self.name, index):
                found.append(index)
        return sorted(found)

    def claims(self) -> Iterator[str]:
        """Yield the claims that its elements have made."""
        for index, _ in self._attempts():
            with suppress(FileNotFoundError):
                claim = os.readlink(self.path(f"{index}/claim"))
                if claim.startswith("job.") and "_" in claim:
                    yield claim

    def job(self, indexes: list[int]) -> Table:
        """Return what `Queue.submit` is told."""
        job = self.read("job.json")
        text = ",".join(_ranges(indexes))
        return dict(job, options=dict(job["options"], array=text))

    def leave(self, index: int) -> None:
        """Forget an attempt; the last one takes the array with it."""
        with suppress(FileNotFoundError):
            os.unlink(self.path(str(index)))
            if not any(self._attempts()):
                shutil.rmtree(self.folder, ignore_errors=True)


def jobs_of(queue: Queue, base: str) -> list[Table]:
    """Return the jobs that Slurm knows; an element has its attempt's name, not its array's."""
    found = queue.jobs()
    for job in found:
        index = job["id"].partition("_")[2]
        if index:
            with suppress(FileNotFoundError):
                link = os.readlink(os.path.join(base, "arrays", job["name"], index))
                job["name"] = os.path.basename(link)
    return found


def sync(folder: str) -> None:
    """Make sure that the names in a folder stay."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _ranges(indexes: list[int]) -> Iterator[str]:
    """Yield rising numbers as sbatch takes them: ``0-5``, ``7``."""
    first = last = indexes[0]
    for index in [*indexes[1:], -1]:
        if index != last + 1:
            yield str(first) if first == last else f"{first}-{last}"
            first = index
        last = index


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
