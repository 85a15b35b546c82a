"""Commands beside a payload, in its container: its user, its folders, its limits.

An engine tells the output of a command once, to whoever starts it. So it waits here until it is
fetched, some 128 KiB of each stream; then the command itself has to wait. A worker that starts
anew does not know the commands of the one before, and starts none of them again.
"""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from temporal_fabric import durable
from temporal_fabric.adapters.contract import AttemptKey, CommandPiece
from temporal_fabric.adapters.docker_calls import STDERR, STDOUT
from temporal_fabric.adapters.docker_jobs import chosen_end
from temporal_fabric.adapters.docker_records import DockerRecord
from temporal_fabric.errors import BackendError, PermanentBackendError, TransientBackendError

if TYPE_CHECKING:
    from pathlib import Path

    from temporal_fabric.adapters.docker_calls import Engine

_HELD_BYTES = 128 * 1024
_UNASKED_S = 60.0
_GRACE_S = 2.0
_LOOK_S = 1.0


@dataclass
class _Held:
    """The output of one stream, as far as it has not arrived where it is wanted."""

    data: bytearray = field(default_factory=bytearray)
    start: int = 0

    def after(self, offset: int) -> bytes:
        if not self.start <= offset <= self.start + len(self.data):
            raise PermanentBackendError(f"not an offset of what is held: {offset}")
        del self.data[: offset - self.start]
        self.start = offset
        return bytes(self.data)


class _Command:
    """One command, from its start to its end."""

    def __init__(self, id_: str) -> None:
        self.id = id_
        self.changed = threading.Condition()
        self.held = {STDOUT: _Held(), STDERR: _Held()}
        self.asked = time.monotonic()
        self.end: CommandPiece | None = None

    @property
    def unasked(self) -> bool:
        """Whether its reader has gone."""
        return time.monotonic() - self.asked > _UNASKED_S

    def take(self, stream: int, data: bytes) -> None:
        """Hold a piece of output; wait while there is no room."""
        with self.changed:
            while len(self.held[stream].data) > _HELD_BYTES and not self.unasked:
                self.changed.wait(_LOOK_S)
            if self.unasked:
                raise TimeoutError
            self.held[stream].data += data
            self.changed.notify_all()

    def finish(self, end: CommandPiece) -> None:
        """Note how it ended."""
        with self.changed:
            self.end = end
            self.changed.notify_all()

    def piece(self, offsets: tuple[int, int], limit_s: float) -> CommandPiece:
        """Return what is there beyond the offsets, or comes soon."""
        until = time.monotonic() + limit_s
        with self.changed:
            while True:
                self.asked = time.monotonic()
                out, err = (
                    self.held[stream].after(offset)
                    for stream, offset in zip((STDOUT, STDERR), offsets, strict=True)
                )
                self.changed.notify_all()
                if self.end is not None:
                    end = self.end
                    return CommandPiece(out, err, True, end.exit_code, end.signal, end.error)  # noqa: FBT003
                left = until - time.monotonic()
                if out or err or left <= 0:
                    return CommandPiece(out, err)
                self.changed.wait(min(left, _LOOK_S))


class DockerCommands:
    """The commands that one worker has started; every method blocks.

    Args:
        engine: The backend's engine.
        root: Folder of the backend's records on this host.
    """

    def __init__(self, engine: Engine, root: Path) -> None:
        self._engine, self._root = engine, root
        self._lock = threading.Lock()
        self._known: dict[tuple[AttemptKey, str], _Command] = {}

    def start(self, key: AttemptKey, container: str, name: str, argv: tuple[str, ...]) -> None:
        """Start a command in a container, unless it was started before."""
        with self._lock:
            if (key, name) in self._known:
                return
            gone = [known for known, command in self._known.items() if command.unasked]
            for known in gone:
                del self._known[known]
            id_ = self._engine.prepare(container, argv)
            claims = DockerRecord.of(self._root, key).folder / "commands"
            durable.make_folder(claims)
            if not durable.create(claims / hashlib.sha256(name.encode()).hexdigest(), b""):
                raise PermanentBackendError(
                    "the command was begun by a worker that has ended; its output is lost"
                )
            command = self._known[key, name] = _Command(id_)
        threading.Thread(target=self._follow, args=(command,), daemon=True).start()

    def fetch(
        self, key: AttemptKey, name: str, offsets: tuple[int, int], limit_s: float
    ) -> CommandPiece:
        """Return the next piece of a command's output."""
        return self._command(key, name).piece(offsets, limit_s)

    def end(self, key: AttemptKey, name: str) -> None:
        """End a command; one that has ended is left alone."""
        command = self._command(key, name)
        for number in (signal.SIGTERM, signal.SIGKILL):
            self._signal(command, number)
            with command.changed:
                if command.changed.wait_for(lambda: command.end is not None, _GRACE_S):
                    return

    def _command(self, key: AttemptKey, name: str) -> _Command:
        command = self._known.get((key, name))
        if command is None:
            raise PermanentBackendError("this worker knows no such command, or no more")
        return command

    def _follow(self, command: _Command) -> None:
        try:
            for stream, data in self._engine.perform(command.id):
                command.take(stream, data)
            code = self._engine.performed(command.id)
            exit_code, killed_by = chosen_end(code)
            command.finish(CommandPiece(exit_code=exit_code, signal=killed_by))
        except TimeoutError:
            self._signal(command, signal.SIGKILL)
            command.finish(CommandPiece(error="nobody fetched its output"))
        except BackendError as exc:
            command.finish(CommandPiece(error=str(exc)))

    def _signal(self, command: _Command, number: signal.Signals) -> None:
        if command.end is None and (pid := self._engine.process_of(command.id)):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                return
            except PermissionError as exc:
                text = f"the worker's user may not signal the command [pid={pid}]"
                raise TransientBackendError(text) from exc
