"""The worker's side of the launcher."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from temporal_fabric import failpoints
from temporal_fabric.errors import BackendUnknown, PermanentBackendError
from temporal_fabric.launcher.link import Link, LinkLostError
from temporal_fabric.launcher.protocol import PROTOCOL, LaunchRecord, LaunchSpec, check_key

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence
    from types import TracebackType

_STARTER = Path(__file__).with_name("starter.py")
_PASSED_ON = ("LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "TMPDIR", "TZ", failpoints.FOLDER_ENV)
_PASSED_PREFIX = "FABRIC_LAUNCHER_"
"""The launcher keeps its environment for life; payloads get theirs from their spec alone."""

_TRIES = 3
_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 0.5
_PRESENT_S = 1.0
"""How long to look for a launcher that may not be started: one could be starting just now."""

_KILL_S = 30.0
"""The kernel's own time for bringing down a tree, on top of the grace."""


class LauncherClient:
    """Runs payloads that outlive this process.

    All methods may be called concurrently and repeated; the connection is restored, and the
    launcher replaced, behind the scenes. Whatever cannot be known is `BackendUnknown`, never
    an absent record.

    Raises (every method):
        BackendUnknown: no launcher could be reached, or it did not answer in time.
        PermanentBackendError: the key or the spec is invalid.
    """

    def __init__(self, home: Path, *, start: bool, timeout_s: float) -> None:
        # Absolute, because a worker may change its folder and the launcher does.
        self._home = home.absolute()
        self._may_start, self._timeout_s = start, timeout_s
        self._connecting = asyncio.Lock()
        self._current: Link | None = None
        self._closed = False

    @classmethod
    async def connect(
        cls, home: Path, *, start: bool = True, timeout_s: float = 15.0
    ) -> LauncherClient:
        """Return a client of the home's launcher, starting one where none answers.

        Args:
            home: Folder of socket, lock, records and log; created with mode 0700.
            start: Whether a missing launcher may be started, now and later.
            timeout_s: Limit for connecting and, beyond its own time, for every answer.
        """
        if start:
            await asyncio.to_thread(home.mkdir, 0o700, parents=True, exist_ok=True)
        client = cls(home, start=start, timeout_s=timeout_s)
        await client._link()
        return client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    @property
    def launcher_pid(self) -> int:
        """The launcher's pid, as this process sees it; of the last one where it has gone."""
        return self._live().pid

    async def start(self, spec: LaunchSpec) -> LaunchRecord:
        """Run a payload unless its key is known.

        Returns when the program runs, or has failed to (``why="exec"``), or at once with what
        is known about the key. Idempotent.

        Raises:
            TransientBackendError: nothing was started; the same call may succeed later.
        """
        try:
            spec.check()
        except ValueError as exc:
            raise PermanentBackendError(f"the payload cannot be started: {exc}") from exc
        return _record(await self._call("start", {"spec": spec.as_dict()}), spec.key)

    async def query(self, key: str) -> LaunchRecord:
        """Return what is known; ``absent`` only for a key that provably never ran."""
        return _record(await self._call("query", _keyed(key)), key)

    async def wait(self, key: str, timeout_s: float) -> LaunchRecord:
        """Return the record at the payload's end, or the current one after the timeout."""
        args = _keyed(key) | {"timeout_s": timeout_s}
        return _record(await self._call("wait", args, extra_s=timeout_s), key)

    async def terminate(self, key: str, grace_s: float) -> LaunchRecord:
        """End a payload: SIGTERM, after the grace SIGKILL.

        Returns only when no process of its tree is left and the end is durable. An absent key
        is forbidden instead: a later `start` returns that record and runs nothing.
        """
        args = _keyed(key) | {"grace_s": grace_s}
        return _record(await self._call("terminate", args, extra_s=grace_s + _KILL_S), key)

    async def freeze(self, key: str) -> LaunchRecord:
        """Stop every process of a payload; its wall limit stands still as well.

        Returns the record, with ``frozen_at`` where the payload is live. Idempotent.

        Raises:
            TransientBackendError: part of it does not stand still yet: call again.
        """
        return _record(await self._call("freeze", _keyed(key)), key)

    async def thaw(self, key: str) -> LaunchRecord:
        """Let a frozen payload go on; return the record. Idempotent."""
        return _record(await self._call("thaw", _keyed(key)), key)

    async def execute(
        self, key: str, command: str, argv: Sequence[str], withheld: Sequence[str] = ()
    ) -> None:
        """Run a command beside a live payload: its groups, sandbox, folder and variables.

        Args:
            key: The attempt.
            command: Names the command; a repetition does not run it twice.
            argv: Program and arguments.
            withheld: Variables of the payload that it does not get.

        Raises:
            PermanentBackendError: the payload has ended, never was, or is paused.
            TransientBackendError: the payload is only being started.
        """
        args = _keyed(key) | {"command": command, "argv": list(argv), "withheld": list(withheld)}
        await self._call("execute", args)

    async def fetch(
        self, key: str, command: str, offsets: tuple[int, int], timeout_s: float
    ) -> dict[str, Any]:
        """Return what a command has written from these offsets on, and whether it has ended.

        Waits for something new until the timeout. ``stdout`` and ``stderr`` (base64), ``ended``
        with the last of them, ``exit_code`` or ``signal`` once known, ``error`` where it did
        not start. A command that nobody asks about for a minute is killed.

        Raises:
            PermanentBackendError: no such command is known, or any more.
        """
        args = _keyed(key) | {"command": command, "offsets": list(offsets)}
        return await self._call("fetch", args | {"timeout_s": timeout_s}, extra_s=timeout_s)

    async def end(self, key: str, command: str) -> None:
        """Ask a command to end; its `fetch` tells when it has. Idempotent."""
        await self._call("end", _keyed(key) | {"command": command})

    async def forget(self, key: str) -> None:
        """Let the record become a tombstone, which refuses a restart for some days more.

        Raises:
            TransientBackendError: the payload still runs.
        """
        await self._call("forget", _keyed(key))

    async def keys(self) -> list[LaunchRecord]:
        """Return the records of all payloads that have neither ended nor been lost."""
        found = await self._call("keys", {})
        return [LaunchRecord.from_dict(record) for record in found["records"]]

    async def info(self) -> dict[str, Any]:
        """Return what the launcher is and what its kill promises.

        ``mode`` (pidns, userns, plain), ``cgroup`` (v1, v2, none), ``pid``, ``incarnation``,
        ``tree_kill`` (certain, best effort), ``version`` of its protocol, ``outdated`` when
        that is older than this client's; and what `limits.held` says.
        """
        found = await self._call("hello", {})
        return found | {"outdated": int(found["version"]) < PROTOCOL}

    async def shutdown(self) -> None:
        """Let the launcher exit; return when its process has gone.

        Raises:
            TransientBackendError: a payload runs.
        """
        async with self._connecting:
            if self._current is None or self._current.lost:
                try:
                    await self._replace(Link.open(self._home, self._timeout_s))
                except LinkLostError:
                    return  # there is none, and none is started to be stopped
            link = self._live()
        # Where it leaves already, or was killed, what counts is that it goes.
        with suppress(LinkLostError):
            await link.call("shutdown", {}, self._timeout_s)
        if not await link.gone(self._timeout_s):
            raise BackendUnknown(f"the launcher does not exit [pid={link.pid}]")

    async def aclose(self) -> None:
        """Disconnect; payloads and launcher go on."""
        self._closed = True
        if self._current is not None:
            await self._current.aclose()

    async def _call(
        self, op: str, args: Mapping[str, Any], *, extra_s: float = 0.0
    ) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        end = loop.time() + extra_s
        lost: LinkLostError | None = None
        for _ in range(_TRIES):
            left = max(end - loop.time(), 0.0)
            if "timeout_s" in args:
                args = {**args, "timeout_s": left}
            link = await self._link()
            try:
                return await link.call(op, args, self._timeout_s + left)
            except LinkLostError as exc:
                lost = exc
        raise BackendUnknown(f"the launcher keeps going away [op={op}]") from lost

    async def _link(self) -> Link:
        if self._closed:
            raise BackendUnknown("the launcher client is closed")
        async with self._connecting:
            if self._current is None or self._current.lost:
                await self._replace(self._open())
            return self._live()

    async def _replace(self, opening: Coroutine[None, None, Link]) -> None:
        link = await opening
        old, self._current = self._current, link
        if old is not None:
            await old.aclose()

    def _live(self) -> Link:
        if self._current is None:
            raise BackendUnknown("not connected to a launcher")
        return self._current

    async def _open(self) -> Link:
        loop = asyncio.get_running_loop()
        limit_s = self._timeout_s if self._may_start else min(self._timeout_s, _PRESENT_S)
        deadline = loop.time() + limit_s
        pause_s = _PAUSE_S
        while True:
            left = deadline - loop.time()
            try:
                hello_s = max(left, _PAUSE_S) if self._may_start else self._timeout_s
                return await Link.open(self._home, hello_s)
            except LinkLostError as exc:
                if left <= 0:
                    raise BackendUnknown(f"no launcher answers [home={self._home}]: {exc}") from exc
            if self._may_start:
                await asyncio.to_thread(_run_starter, self._home, left)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


def _run_starter(home: Path, timeout_s: float) -> None:
    """Start a launcher; a second one at the same time finds the lock held, which is as good.

    Raises:
        BackendUnknown: this host cannot run one now; the launcher's log says more.
    """
    env = {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED_ON or name.startswith(_PASSED_PREFIX)
    }

    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(_STARTER), str(home)],
            check=False,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        return
    if done.returncode != 0:
        said = done.stdout.decode("utf-8", "replace").strip()
        raise BackendUnknown(f"the launcher does not start [home={home}]: {said}")


def _keyed(key: str) -> dict[str, Any]:
    try:
        check_key(key)
    except ValueError as exc:
        raise PermanentBackendError(str(exc)) from exc
    return {"key": key}


def _record(answer: Mapping[str, Any], key: str) -> LaunchRecord:
    try:
        record = LaunchRecord.from_dict(answer)
    except ValueError as exc:
        raise BackendUnknown(f"the launcher's answer is no record: {exc}") from exc
    if record.key != key:
        raise BackendUnknown(f"the launcher answers of another attempt [key={key}]: {record.key}")
    return record
