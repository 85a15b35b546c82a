"""What this host keeps of an attempt on a Docker engine, so that nothing is done twice.

::

    docker/<backend>/<tenant>/<id>/<epoch>/started      id of the container that was told to start
                                          /ended-by     why the fabric ends it, and since when
                                          /forbidden    no start any more; its end, once forgotten
                                          /paused       since when, and seconds before that
                                          /tickets/<n>/ one for each container that was created

A container is created with its *ticket*, a folder, as one of its mounts: it can only start while
the ticket is there. Whoever creates a container tells it to start once at most; anybody else who
wants it started takes the ticket away first and then creates another. So no container that has
been seen not to run can start later, however late the call that would start it arrives, and none
starts twice. Taking away all tickets after ``forbidden`` is written forbids the attempt.
"""

from __future__ import annotations

import fcntl
import json
import secrets
import shutil
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from temporal_fabric import durable

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from temporal_fabric.adapters.contract import AttemptKey

_TURN_S = 0.05
_KEPT_S = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class EndedBy:
    """The fabric's own hand in an end."""

    why: str
    at: float
    """Unix seconds, before the first signal: what had ended by then ended by itself."""


@dataclass(frozen=True, slots=True)
class DockerRecord:
    """The record of one attempt; nothing is made before it is needed."""

    folder: Path

    @classmethod
    def of(cls, root: Path, key: AttemptKey) -> DockerRecord:
        """Return the record of an attempt below a backend's folder."""
        return cls(root / key.tenant / key.request_id / str(key.epoch))

    @contextmanager
    def turn(self, patience_s: float) -> Generator[None]:
        """Hold the attempt's lock, or go on without it after a while.

        It only keeps racing submits from undoing each other's work; the tickets are what keeps
        them safe, also from a worker that was stopped while it held the lock.
        """
        durable.make_folder(self.folder)
        with (self.folder / "lock").open("a") as file:
            end = time.monotonic() + patience_s
            while time.monotonic() < end:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    time.sleep(_TURN_S)
            yield

    def ticket(self) -> Path:
        """Make a ticket."""
        durable.make_folder(self._tickets)
        path = self._tickets / secrets.token_hex(8)
        path.mkdir()
        return path

    def revoke(self) -> None:
        """Take every ticket away."""
        with suppress(FileNotFoundError):
            for path in self._tickets.iterdir():
                with suppress(FileNotFoundError):
                    path.rmdir()

    @property
    def started(self) -> str:
        """The container that was told to start last; empty where none was."""
        return _text(self.folder / "started")

    def mark_started(self, container: str) -> None:
        """Note that a container is about to be told to start; empty for none."""
        durable.replace(self.folder / "started", container.encode())

    @property
    def ended_by(self) -> EndedBy | None:
        """Why the fabric ends the attempt, if it does."""
        text = _text(self.folder / "ended-by")
        return EndedBy(**json.loads(text)) if text else None

    def mark_ended_by(self, why: str) -> None:
        """Note why a signal is about to be sent; the first reason stays."""
        durable.make_folder(self.folder)
        noted = {"why": why, "at": time.time()}
        durable.create(self.folder / "ended-by", json.dumps(noted).encode())

    @property
    def forbidden(self) -> bool:
        """Whether the attempt must not start any more."""
        return (self.folder / "forbidden").exists()

    def forbid(self) -> None:
        """Forbid the attempt for good, first for those who ask, then for those under way."""
        durable.make_folder(self.folder)
        durable.create(self.folder / "forbidden", b"{}")
        self.revoke()

    @property
    def end(self) -> dict[str, Any] | None:
        """How it ended, where its container was removed since."""
        return json.loads(_text(self.folder / "forbidden") or "{}") or None

    def keep_end(self, end: dict[str, Any]) -> None:
        """Keep how it ended for when the container is gone; forbids it, too."""
        durable.make_folder(self.folder)
        durable.replace(self.folder / "forbidden", json.dumps(end).encode())
        self.revoke()

    def paused(self, now: float | None = None) -> tuple[float | None, float]:
        """Return since when it stands still, if it does, and for how long in all.

        Args:
            now: Unix seconds until which a pause that goes on is counted; the present one.
        """
        text = _text(self.folder / "paused")
        noted: dict[str, Any] = json.loads(text) if text else {"at": None, "before": 0.0}
        at, before = noted["at"], float(noted["before"])
        more = 0.0 if at is None else max(0.0, (now or time.time()) - at)
        return (at, before + more)

    def mark_paused(self, *, paused: bool) -> None:
        """Note that it stands still from now on, or goes on."""
        at, before = self.paused()
        if paused != (at is not None):
            noted = {"at": time.time() if paused else None, "before": before}
            durable.replace(self.folder / "paused", json.dumps(noted).encode())

    @property
    def _tickets(self) -> Path:
        return self.folder / "tickets"


def prune(root: Path) -> None:
    """Remove the records of attempts that ended so long ago that nobody starts them late."""
    oldest = time.time() - _KEPT_S
    for mark in root.glob("*/*/*/forbidden"):
        with suppress(OSError):
            if mark.stat().st_mtime < oldest:
                shutil.rmtree(mark.parent)
                for folder in (mark.parent.parent, mark.parent.parent.parent):
                    folder.rmdir()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
