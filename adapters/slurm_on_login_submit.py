"""Submitting on a login node: a job of its own, or elements of an array; each attempt once.

Part of the program that `slurm_on_login` describes. ``launch.json`` of an attempt is made once,
when all its files are there and before Slurm is asked for anything. It says for good how the
attempt is submitted: under its own name, or by ``array`` and ``index``. So who makes it knows that
no job can exist; everybody else looks first. An array has a folder of its own::

    0, 1, ...   links to its attempts, by index
    job.json    its options, made once, when all of this is there
    list.json   the indexes that are asked of Slurm, made once before that; none if Slurm refused it
    id.json     the id that Slurm gave it

An attempt whose launch names an array is submitted with that array by whoever comes first; one
that the array's list leaves out is submitted under its own name.
"""

from __future__ import annotations

import base64
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters.slurm_on_login_jobs import FORBIDDEN, Array, Attempt, jobs_of
from temporal_fabric.adapters.slurm_on_login_queue import Trouble

if TYPE_CHECKING:
    from temporal_fabric.adapters.slurm_on_login_queue import Queue

    Table = dict[str, Any]

_FOLDERS = ("task", "input", "output")
_AT_ONCE = 16


class Submission:
    """Submits what one request asks for.

    Args:
        base: Folder of all attempts of a fabric.
        asked: The request.
        queue: Slurm.
    """

    def __init__(self, base: str, asked: Table, queue: Queue) -> None:
        self.base, self.asked, self.queue = base, asked, queue

    def prepare(self) -> Table:
        """Make the folders of an attempt, or tell its job's id where it was submitted before."""
        attempt = Attempt(self.base, self.asked["name"])
        with attempt.lock():
            found = self._id_of(attempt)
            if not found:
                self._lay_out(attempt, self.asked)
        return {"id": found}

    def submit(self) -> Table:
        """Submit one attempt, or find the job that it has."""
        asked = self.asked
        attempt = Attempt(self.base, asked["name"])
        with attempt.lock():
            found = self._id_of(attempt)
            if not found:
                self._lay_out(attempt, asked)
                if not attempt.write("launch.json", asked["launch"], once=True):
                    found = self._id_of(attempt)
            return {"id": found or self._hand_over(attempt)}

    def submit_array(self) -> Table:
        """Submit many attempts by one call of sbatch; tell its id, and which of them it has."""
        asked = self.asked
        array = Array(self.base, asked["name"])
        with array.lock():
            if not array.read("job.json"):
                array.link([member["name"] for member in asked["members"]])
                _write_texts(array.folder, asked["files"])
                array.write("job.json", asked["job"], once=True)
            # What waits for the disk waits together.
            with ThreadPoolExecutor(_AT_ONCE) as threads:
                list(threads.map(partial(self._enlist, array), range(len(asked["members"]))))
            return self._finish(array)

    def _enlist(self, array: Array, index: int) -> None:
        """Make an attempt an element, unless it was begun before in whatever way."""
        member = self.asked["members"][index]
        attempt = Attempt(self.base, member["name"])
        if attempt.claim() or attempt.read("launch.json"):
            return
        self._lay_out(attempt, member)
        launch = dict(member["launch"], array=array.name, index=index)
        attempt.write("launch.json", launch, once=True)

    def _id_of(self, attempt: Attempt) -> str:
        """Return the id of the job that an attempt has, or nothing.

        Raises:
            Trouble: permanent: it must not have one; else Slurm cannot be asked.
        """
        if attempt.claim() == FORBIDDEN:
            raise Trouble("the attempt was terminated before it was submitted", "permanent")
        found = attempt.job_id()
        if found:
            return found
        launch = attempt.read("launch.json")
        if not launch:
            return ""
        if launch.get("array"):
            array = Array(self.base, launch["array"])
            with array.lock():
                self._finish(array)
            found = attempt.job_id()
        return found or self._by_name(attempt)

    def _lay_out(self, attempt: Attempt, asked: Table) -> None:
        """Make an attempt's folders and small files; whole ones that are there are left alone."""
        place = os.path.join(self.base, "runs", asked["tenant"], asked["request"])
        folder = os.path.join(place, str(asked["epoch"]))
        for path in (
            attempt.folder,
            os.path.join(place, "checkpoints"),
            *(os.path.join(folder, name) for name in _FOLDERS),
        ):
            os.makedirs(path, mode=0o700, exist_ok=True)
        attempt.put(folder)
        for path, kind, mode, text in asked.get("trees", ()):
            _bring(os.path.join(place, path), kind, mode, text)
        _write_texts(attempt.folder, asked.get("files", {}))

    def _hand_over(self, attempt: Attempt) -> str:
        asked = self.asked
        try:
            found = self.queue.submit(asked["job"])
        except Trouble as exc:
            trouble = exc
        else:
            attempt.write("id.json", {"id": found})
            return found
        # It may have been accepted all the same: look before anything else.
        found = self._by_name(attempt)
        if found:
            return found
        if self._for_good(trouble):
            if attempt.forbid() != FORBIDDEN:
                return attempt.job_id()
            trouble.kind = "permanent"
        raise trouble

    def _for_good(self, trouble: Trouble) -> bool:
        words = self.asked["permanent"]
        return trouble.kind == "refused" and any(word in str(trouble) for word in words)

    def _by_name(self, attempt: Attempt) -> str:
        own = [job for job in jobs_of(self.queue, self.base) if job["name"] == attempt.name]
        if not own:
            return ""
        attempt.write("id.json", {"id": own[0]["id"]})
        return str(own[0]["id"])

    def _finish(self, array: Array) -> Table:
        """Submit an array, unless that was done; return its id and the indexes that it has."""
        done = array.read("id.json")
        if done:
            return done
        first = array.write("list.json", {"indexes": array.enlisted()}, once=True)
        indexes = array.read("list.json")["indexes"]
        if not indexes:
            return {"id": "", "indexes": []}
        found = "" if first else self._array_id(array)
        if not found:
            try:
                found = self.queue.submit(array.job(indexes))
            except Trouble as exc:
                found = self._array_id(array)
                if not found and self._for_good(exc):
                    # Its attempts go alone, and each hears what speaks against it.
                    array.write("list.json", {"indexes": []})
                    return {"id": "", "indexes": []}
                if not found:
                    raise
        done = {"id": found, "indexes": indexes}
        array.write("id.json", done)
        return done

    def _array_id(self, array: Array) -> str:
        """Return the id of an array of which the answer may have been lost, or nothing."""
        own = [job["id"] for job in self.queue.jobs() if job["name"] == array.name]
        found = own or [claim.split(".")[1] for claim in array.claims()]
        return found[0].partition("_")[0] if found else ""


def _write_texts(folder: str, texts: dict[str, str]) -> None:
    for name, text in texts.items():
        _replace(os.path.join(folder, name), text.encode("utf-8"), 0o600)


def _bring(path: str, kind: str, mode: int, text: str) -> None:
    """Make a file, a folder or a link that came with the request."""
    if kind == "folder":
        os.makedirs(path, mode=0o700, exist_ok=True)
    elif kind == "link":
        with suppress(FileExistsError):
            os.symlink(text, path)
    else:
        content = base64.b64decode(text)
        if not os.path.exists(path) or os.stat(path).st_size != len(content):
            _replace(path, content, mode)


def _replace(path: str, content: bytes, mode: int) -> None:
    part = f"{path}.{os.uname().nodename}.{os.getpid()}.part"
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(content)
    os.replace(part, path)
