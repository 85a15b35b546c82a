"""The files of one attempt, in the folder that login and compute nodes share.

Part of the program that `slurm_on_login` describes.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

from temporal_fabric.adapters.slurm_on_login_queue import Trouble
from temporal_fabric.adapters.slurm_on_node import write

if TYPE_CHECKING:
    from collections.abc import Generator

    Table = dict[str, Any]

FORBIDDEN = "forbidden"
"""The claim of an attempt that no job may have any more."""

PIECE = 1 << 17
"""Bytes of a command's output that are fetched at once."""

_LOCK_S = 20.0
_LOOK_S = 0.1


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
        write(self.folder, name, content, once=once)

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
