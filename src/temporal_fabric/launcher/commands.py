"""Commands that run beside a live payload: in its groups, its sandbox, its working folder.

What a command writes waits here until it is fetched, some 128 KiB of each stream; then the
command itself has to wait. Each fetch says how much has arrived, so one whose answer is lost
is repeated without loss. A command that nobody asks about is ended: its reader has gone.
"""

from __future__ import annotations

import asyncio
import base64
import os
import signal
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from temporal_fabric.launcher import process
from temporal_fabric.launcher.protocol import PERMANENT, TRANSIENT, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from temporal_fabric.launcher.live import Attempt, Identity

_HELD_BYTES = 128 * 1024
_MOST = 16
"""Commands of one attempt at a time."""

_UNASKED_S = 60.0
_GRACE_S = 2.0
_DRAIN_S = 1.0
"""A process that a command leaves behind may hold its streams open for ever."""


class Stream:
    """One stream of a command, as far as it has not arrived where it is wanted."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._source, self.target = os.pipe()
        os.set_blocking(self._source, False)
        self._held, self._start = bytearray(), 0
        self._changed, self._reading = changed, False
        self.over = False
        """Whether nothing more comes."""

    def read_on(self) -> None:
        """Take what comes while there is room for it."""
        room = not self.over and len(self._held) < _HELD_BYTES
        if room != self._reading:
            loop = asyncio.get_running_loop()
            if room:
                loop.add_reader(self._source, self._take)
            else:
                loop.remove_reader(self._source)
            self._reading = room

    def after(self, offset: int) -> bytes:
        """Return what is held from an offset on; what lies before it has arrived."""
        if not self._start <= offset <= self._start + len(self._held):
            raise ValueError(f"not an offset of what is held: {offset}")
        del self._held[: offset - self._start]
        self._start = offset
        self.read_on()
        return bytes(self._held)

    def close(self) -> None:
        """Take nothing more."""
        if not self.over:
            self.over = True
            self.read_on()
            os.close(self._source)
            self._changed()

    def _take(self) -> None:
        with suppress(BlockingIOError):
            data = os.read(self._source, _HELD_BYTES - len(self._held))
            self._held += data
            if not data:
                self.close()
            self.read_on()
            self._changed()


class Command:
    """One command."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.streams = (Stream(self.changed.set), Stream(self.changed.set))
        self.started = False
        self.error = ""
        """Why it did not start."""

        self.status: int | None = None
        """Wait status, once it has ended."""

        self.send: Callable[[int], None] = lambda _: None
        """Sends a signal to it and to what it has started."""

        self.unasked: asyncio.TimerHandle | None = None

    @property
    def targets(self) -> tuple[int, int]:
        """Where it writes."""
        return (self.streams[0].target, self.streams[1].target)

    @property
    def over(self) -> bool:
        """Whether it has ended and nothing more comes from it."""
        return self.status is not None and all(stream.over for stream in self.streams)

    def ended(self, status: int) -> None:
        """Learn its wait status."""
        self.status = status
        self.changed.set()
        asyncio.get_running_loop().call_later(_DRAIN_S, self.close)

    def close(self) -> None:
        """Take nothing more from it."""
        for stream in self.streams:
            stream.close()

    def kill(self) -> None:
        """Send SIGKILL unless it has ended."""
        if self.status is None:
            self.send(signal.SIGKILL)


class Commands:
    """The commands of all attempts of a launcher."""

    def __init__(self, identity: Identity, around: process.Surroundings) -> None:
        self._identity, self._around = identity, around
        self._known: dict[tuple[str, str], Command] = {}
        self._pids: dict[int, Command] = {}

    async def start(
        self, attempt: Attempt, name: str, argv: Sequence[str], withheld: Collection[str]
    ) -> None:
        """Start a command; one whose name is known was started before.

        Args:
            attempt: The live attempt whose payload it runs beside.
            name: Chosen by who asks; a repetition must not run it twice.
            argv: Program and arguments.
            withheld: Variables of the payload that it does not get.

        Raises:
            RefusedError: the attempt takes no command, now or ever.
        """
        place = (attempt.spec.key, name)
        if place in self._known:
            return
        if (
            sum(key == place[0] and c.status is None for (key, _), c in self._known.items())
            >= _MOST
        ):
            raise RefusedError(TRANSIENT, f"{_MOST} commands run beside the payload already")
        # Neither frozen nor cleared away before it is in its place.
        async with attempt.freezing:
            _require_running(attempt)
            command = self._known[place] = Command()
            env = attempt.spec.env | self._identity.marks(attempt.spec.key)
            env = {var: value for var, value in env.items() if var not in withheld}
            try:
                if attempt.door is None:
                    command.error = await self._beside(attempt, command, tuple(argv), env)
                else:
                    command.error = await _inside(attempt, command, tuple(argv), env)
            except OSError as exc:
                del self._known[place]
                raise RefusedError(TRANSIENT, f"no process [key={place[0]}]: {exc}") from exc
            finally:
                for target in command.targets:
                    os.close(target)
        self._touch(place)
        for stream in command.streams:
            stream.read_on()

    async def fetch(
        self, key: str, name: str, offsets: Sequence[int], timeout_s: float
    ) -> dict[str, Any]:
        """Return what a command has written beyond the offsets, and how it ended.

        Waits for something new. ``ended`` comes with the last of its output.

        Raises:
            RefusedError: permanent; no such command is known any more.
        """
        command = self._find(key, name)
        deadline = asyncio.get_running_loop().time() + timeout_s
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                while True:
                    command.changed.clear()
                    pieces = _pieces(command, offsets)
                    if any(pieces) or command.over:
                        break
                    await command.changed.wait()
        # While somebody waited here, somebody was interested.
        self._find(key, name)
        pieces = _pieces(command, offsets)
        told: dict[str, Any] = {"ended": command.over, "error": command.error}
        if command.status is not None:
            code = os.waitstatus_to_exitcode(command.status)
            told["signal" if code < 0 else "exit_code"] = abs(code)
        names = ("stdout", "stderr")
        return told | {n: base64.b64encode(p).decode() for n, p in zip(names, pieces, strict=True)}

    def end(self, key: str, name: str) -> None:
        """Ask a command to end: SIGTERM, a moment later SIGKILL."""
        command = self._known.get((key, name))
        if command is not None and command.status is None:
            command.send(signal.SIGTERM)
            asyncio.get_running_loop().call_later(_GRACE_S, command.kill)

    async def end_all(self, attempt: Attempt) -> None:
        """Kill the commands of an attempt whose payload has ended; none starts any more."""
        for (key, _), command in self._known.items():
            if key == attempt.spec.key:
                command.kill()
        async with attempt.freezing:
            if attempt.door is not None:
                attempt.door.close()

    def reaped(self, pid: int, status: int) -> None:
        """Learn that a child has ended which is no payload."""
        if command := self._pids.pop(pid, None):
            command.ended(status)

    async def _beside(
        self, attempt: Attempt, command: Command, argv: tuple[str, ...], env: dict[str, str]
    ) -> str:
        """Fork it like a payload; return why it did not start."""
        spec = replace(attempt.spec, argv=argv, sandbox=None)
        groups = attempt.tree.groups()
        child = process.spawn(spec, env, groups, self._around, streams=command.targets)
        self._pids[child.pid] = command
        command.send = lambda sent: _signal_session(child.pid, sent)
        joined = await child.host_pid()
        # From here on it is in the groups: who clears them away will find it.
        child.release(run=joined is not None and not attempt.reaped)
        return await child.error()

    def _find(self, key: str, name: str) -> Command:
        if (key, name) not in self._known:
            raise RefusedError(PERMANENT, f"no such command [key={key}, command={name}]")
        self._touch((key, name))
        return self._known[key, name]

    def _touch(self, place: tuple[str, str]) -> None:
        command = self._known[place]
        if command.unasked is not None:
            command.unasked.cancel()
        loop = asyncio.get_running_loop()
        command.unasked = loop.call_later(_UNASKED_S, self._drop, place)

    def _drop(self, place: tuple[str, str]) -> None:
        command = self._known.pop(place)
        command.kill()
        command.close()


def _require_running(attempt: Attempt) -> None:
    key = attempt.spec.key
    if attempt.reaped or attempt.why is not None:
        raise RefusedError(PERMANENT, f"the payload has ended, or is being ended [key={key}]")
    if attempt.pid is None or not attempt.tried.is_set():
        raise RefusedError(TRANSIENT, f"the payload is only being started [key={key}]")
    if attempt.record.frozen_at is not None:
        raise RefusedError(PERMANENT, f"the payload is paused: resume it first [key={key}]")


async def _inside(
    attempt: Attempt, command: Command, argv: tuple[str, ...], env: dict[str, str]
) -> str:
    """Let the sandbox's first process start it; return why it did not start."""
    if attempt.door is None:
        raise ValueError("not in a sandbox")
    door, (err_read, err_write) = attempt.door, os.pipe()
    complaint = await process.reading(err_read)
    try:
        number = door.run({"argv": argv, "env": env}, (*command.targets, err_write), command.ended)
    finally:
        os.close(err_write)
    command.send = lambda sent: door.kill(number, sent)
    return (await complaint.read()).decode("utf-8", "replace").strip()


def _signal_session(pid: int, sent: int) -> None:
    # It is not reaped yet, so the pid is its own; before it leads a session it is alone.
    for send in (os.killpg, os.kill):
        with suppress(ProcessLookupError):
            send(pid, sent)
            return


def _pieces(command: Command, offsets: Sequence[int]) -> list[bytes]:
    return [s.after(int(at)) for s, at in zip(command.streams, offsets, strict=True)]
