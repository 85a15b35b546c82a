"""What an experiment has done on a device: a journal that is durable before the device acts.

One file per experiment, which all its attempts share, because a step that was performed is
not performed again by the next one. It is never removed: it is what keeps a late call from
moving anything. Every line is a JSON object and is on disk before what follows from it:
``intended`` before a command goes to the device, ``sent`` with the execution's UUID as soon as
the device has given it. A command that is ``intended`` and nothing else was interrupted in
between: nobody but the device, or a person, knows whether it was performed.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from temporal_fabric import durable
from temporal_fabric.adapters import lab_pausing
from temporal_fabric.adapters.lab_pausing import Pauses
from temporal_fabric.requests.engines import LabCommand, LabPayload, LabStep
from temporal_fabric.shapes import is_table

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path

    from temporal_fabric.adapters.contract import AttemptKey, AttemptSpec
    from temporal_fabric.questions import Resolution

INTENDED, SENT, UNKNOWN = "intended", "sent", "unknown"
DONE, FAILED, STOPPED, REFUSED = "done", "failed", "stopped", "refused"
"""How a command stands. The first three are open: it may have been performed, or not."""

_OF_COMMANDS = frozenset({INTENDED, SENT, UNKNOWN, DONE, FAILED, STOPPED, REFUSED})
_OPEN = frozenset({INTENDED, SENT})
_ANSWERS = {"done": DONE, "not-done": REFUSED}


@dataclass(frozen=True, slots=True)
class Issued:
    """The last time that a command of a step was issued."""

    step: str
    """Its ``command_id``."""

    undoes: bool
    """Whether it is what undoes the step."""

    state: str
    epoch: int
    uuid: str = ""
    """Of the execution, as the device calls it; an unobservable command has none."""

    since: float = 0.0
    """When it was intended, in Unix seconds."""

    responses: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(slots=True)
class Attempted:
    """One attempt."""

    run: str
    """A name for people."""

    plan: LabPayload | None = None
    wall_s: float | None = None
    grace_s: float = 0.0
    stop_s: float | None = None
    """Somebody wants its end, with this grace: no further step may begin."""

    halted: bool = False
    """Somebody has stopped the device in an emergency: a person has to look at it first."""

    pauses: Pauses = field(default_factory=Pauses)
    forgotten: bool = False
    started_at: float | None = None
    ended_at: float | None = None
    end: dict[str, Any] | None = None


@dataclass(slots=True)
class Standing:
    """All that a journal says."""

    records: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    attempts: dict[int, Attempted] = field(default_factory=dict[int, Attempted])
    issued: dict[tuple[str, bool], Issued] = field(default_factory=dict[tuple[str, bool], Issued])
    turned: dict[str, Any] | None = None
    """How it will end once all is undone: a step has failed, or an end was asked for."""

    def state(self, step: str, *, undoes: bool = False) -> str:
        """Return how a command stands, empty where it was never issued or was undone."""
        found = self.issued.get((step, undoes))
        return found.state if found else ""

    @property
    def open(self) -> Issued | None:
        """The command that the device may be performing."""
        return next((found for found in self.issued.values() if found.state in _OPEN), None)

    @property
    def unknown(self) -> Issued | None:
        """The command of which nobody knows whether it was performed."""
        return next((found for found in self.issued.values() if found.state == UNKNOWN), None)

    def next(self, plan: LabPayload) -> LabStep | None:
        """Return the first step that is not done."""
        return next((step for step in plan.steps if self.state(step.command_id) != DONE), None)

    def undo(self, plan: LabPayload) -> tuple[LabStep, LabCommand] | None:
        """Return the newest step that is done and can be undone, with what undoes it."""
        for step in reversed(plan.steps):
            if step.compensate is not None and self.state(step.command_id) == DONE:
                return (step, step.compensate)
        return None

    def badge(self, experiment: str) -> str:
        """Return what a device that is locked knows the experiment by, whichever attempt it is."""
        runs = [attempt.run for attempt in self.attempts.values() if attempt.run]
        return f"temporal-fabric {experiment} {runs[0]}" if runs else ""

    def take(self, record: dict[str, Any]) -> None:
        """Follow one record."""
        self.records.append(record)
        what, epoch = record["is"], record["epoch"]
        attempt = self.attempts.setdefault(epoch, Attempted(""))
        if what in _OF_COMMANDS:
            self._command(record, attempt)
        elif what == "accepted":
            attempt.plan = LabPayload.model_validate(record["plan"])
            attempt.run = record["run"]
            attempt.wall_s, attempt.grace_s = record["wall_s"], record["grace_s"]
        elif what == "stop":
            given = [record["grace_s"], *([] if attempt.stop_s is None else [attempt.stop_s])]
            attempt.stop_s = min(given)
            attempt.halted |= "halted_by" in record
        elif what in lab_pausing.RECORDS:
            attempt.pauses.take(record)
        elif what == "forgotten":
            attempt.forgotten = True
        elif what == "turned":
            self.turned = record
        elif what == "end":
            attempt.end, attempt.ended_at = record, record["at"]
            if not record["question"]:
                self.turned = None

    def _command(self, record: dict[str, Any], attempt: Attempted) -> None:
        key, what = (record["step"], record["undoes"]), record["is"]
        before = self.issued.get(key)
        since = record["at"] if before is None or what == INTENDED else before.since
        uuid = record.get("uuid", "" if before is None or what == INTENDED else before.uuid)
        self.issued[key] = Issued(
            *key, what, record["epoch"], uuid, since, record.get("responses", {})
        )
        if what == INTENDED and attempt.started_at is None:
            attempt.started_at = record["at"]
        if what == DONE and record["undoes"]:
            # The step may be performed again: it is as if it had not been.
            del self.issued[key]
            self.issued.pop((record["step"], False), None)


class Journal:
    """The journal of one experiment.

    Args:
        folder: Of all journals of one backend.
        key: Of any of its attempts.
    """

    def __init__(self, folder: Path, key: AttemptKey) -> None:
        self.experiment = f"{key.tenant}@{key.request_id}"
        self.epoch = key.epoch
        self._path = path_of(folder, self.experiment)
        self._lock = self._path.with_suffix(".lock")

    def read(self) -> Standing:
        """Return what it says."""
        return read(self._path)

    def append(self, what: str, **more: Any) -> None:
        """Add a line, and return once it is on disk."""
        record = {"is": what, "epoch": self.epoch, "at": round(time.time(), 3), **more}
        new = not self._path.exists()
        durable.make_folder(self._path.parent)
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            # The first line break ends a line that was torn.
            size = os.fstat(fd).st_size
            torn = size and os.pread(fd, 1, size - 1) != b"\n"
            line = json.dumps(record, default=str).encode() + b"\n"
            os.write(fd, b"\n" + line if torn else line)
            os.fsync(fd)
        finally:
            os.close(fd)
        if new:
            durable.sync_folder(self._path.parent)

    def command(self, what: str, step: str, *, undoes: bool, **more: Any) -> None:
        """Add how a command stands now."""
        self.append(what, step=step, undoes=undoes, **more)

    def accept(self, attempt: AttemptSpec, plan: LabPayload, run: str) -> None:
        """Take an attempt on, with what people have answered about the ones before it."""
        for issued, answer, by in _answered(self.read(), attempt.resolutions):
            self.command(answer, issued.step, undoes=issued.undoes, by=by)
        limits = {
            "wall_s": attempt.request.limits.wall_s,
            "grace_s": attempt.request.limits.grace_s,
        }
        self.append("accepted", run=run, plan=plan.model_dump(mode="json"), **limits)

    def end(self, reason: str, message: str, code: int | None = None, question: str = "") -> None:
        """End the attempt."""
        self.append("end", reason=reason, message=message, code=code, question=question)

    @contextmanager
    def held(self) -> Generator[bool]:
        """Say whether nobody else drives this experiment; if so, nobody does until the exit."""
        durable.make_folder(self._lock.parent)
        fd = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(fd)


def path_of(folder: Path, experiment: str) -> Path:
    """Return the file of an experiment's journal."""
    return folder / f"{experiment}.jsonl"


def read(path: Path) -> Standing:
    """Return what a journal says; a line that a power cut has torn never counted."""
    standing = Standing()
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return standing
    for line in content.split(b"\n")[:-1]:
        try:
            record: object = json.loads(line)
        except ValueError:
            continue
        if is_table(record):
            standing.take(record)
    return standing


def _answered(
    standing: Standing, resolutions: Sequence[Resolution]
) -> Iterator[tuple[Issued, str, str]]:
    """Yield the unknown commands that a person has answered for, how, and who."""
    for issued in standing.issued.values():
        if issued.state != UNKNOWN:
            continue
        said = [word for word in resolutions if word.epoch >= issued.epoch]
        if said and said[-1].answer in _ANSWERS:
            yield (issued, _ANSWERS[said[-1].answer], said[-1].by)
