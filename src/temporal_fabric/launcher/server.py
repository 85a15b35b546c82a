"""The launcher's event loop: the socket, the operations, and when to leave.

SIGTERM is ignored while a payload runs: whoever stops a host stops the payloads first, and
everything else that sends it (a session that ends, a service manager that restarts the worker)
must not take payloads along. SIGINT and SIGHUP are ignored always.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temporal_fabric.launcher import cgroups, limits, syscalls
from temporal_fabric.launcher.attempts import Supervisor
from temporal_fabric.launcher.journal import log
from temporal_fabric.launcher.live import Identity
from temporal_fabric.launcher.process import Surroundings
from temporal_fabric.launcher.protocol import (
    MAX_LINE,
    PERMANENT,
    PROTOCOL,
    SOCKET,
    TRANSIENT,
    LaunchSpec,
    RefusedError,
    check_key,
    decode,
    encode,
)
from temporal_fabric.launcher.records import Records
from temporal_fabric.launcher.trees import GroupTree, MarkedTree

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping

    from temporal_fabric.launcher.bases import Bases
    from temporal_fabric.launcher.trees import Tree

PLAIN = "plain"

_POOL = 8
_BACKLOG = 1024
_SWEEP_S = 6 * 3600.0
_IDLE_ENV, _IDLE_S = "FABRIC_LAUNCHER_IDLE_S", 60.0
_KEEP_ENV, _KEEP_DAYS = "FABRIC_LAUNCHER_KEEP_DAYS", 7.0


@dataclass(frozen=True, slots=True)
class Setup:
    """What the starter has prepared; the current folder is the home."""

    mode: str
    """``pidns``, ``userns`` or ``plain``."""

    bases: Bases
    host_proc: int

    def tree_kill(self) -> str:
        """Say what a kill promises."""
        held = self.mode != PLAIN and self.bases.kill is not None
        return "certain" if held else "best effort"


class Server:
    """One launcher."""

    def __init__(self, setup: Setup) -> None:
        home = Path()
        self._setup = setup
        self._identity = Identity(syscalls.home_id(home), uuid.uuid4().hex, syscalls.boot_id())
        self._pool = ThreadPoolExecutor(_POOL, "disk")
        self._records = Records(home)
        around = Surroundings(setup.host_proc, dies_with_parent=setup.mode == PLAIN)
        self._attempts = Supervisor(self._identity, self._records, self._plant, around, self._pool)
        self._attempts.on_end = self._consider_leaving
        self._attempts.sole_end = self._sole_end
        self._clients: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._leave = asyncio.Event()
        self._idle_s = float(os.environ.get(_IDLE_ENV) or _IDLE_S)
        self._idle_timer: asyncio.TimerHandle | None = None
        self._operations: dict[str, Callable[[dict[str, Any]], Awaitable[Mapping[str, Any]]]] = {
            "hello": self._hello,
            "start": self._start,
            "query": self._query,
            "wait": self._wait,
            "terminate": self._terminate,
            "freeze": self._freeze,
            "thaw": self._thaw,
            "execute": self._execute,
            "fetch": self._fetch,
            "end": self._end,
            "forget": self._forget,
            "keys": self._keys,
            "shutdown": self._shutdown,
        }

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve until there is a reason to leave."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._attempts.reap)
        loop.add_signal_handler(signal.SIGTERM, self._sigterm)
        # When thousands die at once the loop's pipe fills up. What does not fit needs no
        # warning: the SIGCHLD before it in the pipe is answered later, by reaping everything.
        signal.set_wakeup_fd(signal.set_wakeup_fd(-1), warn_on_full_buffer=False)
        server = await asyncio.start_unix_server(self._serve, sock=_listen(), limit=MAX_LINE)
        self._sweep()
        ready()
        log(f"serving [mode={self._setup.mode}, cgroup={self._setup.bases.version}]")
        # A child is a copy: what is never collected is never copied on write.
        gc.collect()
        gc.freeze()
        self._consider_leaving()
        await self._leave.wait()
        server.close()
        for writer in list(self._clients):
            writer.close()
        # The answer to `shutdown` is on its way out through the same loop.
        await asyncio.sleep(0.01)
        for base in self._setup.bases.folders():
            cgroups.remove_group(base)
        log("leaving")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._leave.is_set():
            writer.close()
            return
        self._clients.add(writer)
        self._stop_idling()
        try:
            # An oversized line is a ValueError: the client is told by the closed connection.
            with suppress(ConnectionError, ValueError):
                while line := await reader.readline():
                    self._spawn_task(self._answer(line, writer))
        finally:
            self._clients.discard(writer)
            writer.close()
            self._consider_leaving()

    async def _answer(self, line: bytes, writer: asyncio.StreamWriter) -> None:
        if self._leave.is_set():
            return  # the end of the connection sends the client to the next launcher
        try:
            request = decode(line)
        except ValueError:
            writer.close()
            return
        reply: dict[str, Any] = {"id": request.get("id")}
        try:
            operation = self._operations[str(request["op"])]
            reply["ok"] = await operation(request.get("args") or {})
        except RefusedError as exc:
            reply["error"] = {"kind": exc.kind, "message": str(exc)}
        except (KeyError, TypeError, ValueError) as exc:
            reply["error"] = {"kind": PERMANENT, "message": f"bad request: {exc!r}"}
        except OSError as exc:
            reply["error"] = {"kind": TRANSIENT, "message": f"the launcher's host: {exc}"}
        with suppress(ConnectionError, RuntimeError):
            writer.write(encode(reply))
            await writer.drain()

    async def _hello(self, args: dict[str, Any]) -> Mapping[str, Any]:
        del args
        return {
            "version": PROTOCOL,
            "mode": self._setup.mode,
            "cgroup": self._setup.bases.version,
            "pid": int(os.readlink("self", dir_fd=self._setup.host_proc)),
            "incarnation": self._identity.incarnation,
            "tree_kill": self._setup.tree_kill(),
            **limits.held(self._setup.bases),
        }

    async def _start(self, args: dict[str, Any]) -> Mapping[str, Any]:
        spec = LaunchSpec.from_dict(args["spec"])
        spec.check()
        return (await self._attempts.start(spec)).as_dict()

    async def _query(self, args: dict[str, Any]) -> Mapping[str, Any]:
        return (await self._attempts.query(_key(args))).as_dict()

    async def _wait(self, args: dict[str, Any]) -> Mapping[str, Any]:
        return (await self._attempts.wait(_key(args), float(args["timeout_s"]))).as_dict()

    async def _terminate(self, args: dict[str, Any]) -> Mapping[str, Any]:
        return (await self._attempts.terminate(_key(args), float(args["grace_s"]))).as_dict()

    async def _freeze(self, args: dict[str, Any]) -> Mapping[str, Any]:
        return (await self._attempts.freeze(_key(args))).as_dict()

    async def _thaw(self, args: dict[str, Any]) -> Mapping[str, Any]:
        return (await self._attempts.thaw(_key(args))).as_dict()

    async def _execute(self, args: dict[str, Any]) -> Mapping[str, Any]:
        attempt = self._attempts.live.get(_key(args))
        if attempt is None:
            raise RefusedError(PERMANENT, f"no live payload [key={args['key']}]")
        argv, withheld = [str(word) for word in args["argv"]], set(args["withheld"])
        await self._attempts.commands.start(attempt, str(args["command"]), argv, withheld)
        return {}

    async def _fetch(self, args: dict[str, Any]) -> Mapping[str, Any]:
        commands, timeout_s = self._attempts.commands, float(args["timeout_s"])
        return await commands.fetch(_key(args), str(args["command"]), args["offsets"], timeout_s)

    async def _end(self, args: dict[str, Any]) -> Mapping[str, Any]:
        self._attempts.commands.end(_key(args), str(args["command"]))
        return {}

    async def _forget(self, args: dict[str, Any]) -> Mapping[str, Any]:
        await self._attempts.forget(_key(args))
        return {}

    async def _keys(self, args: dict[str, Any]) -> Mapping[str, Any]:
        del args
        return {"records": [a.record.as_dict() for a in self._attempts.live.values()]}

    async def _shutdown(self, args: dict[str, Any]) -> Mapping[str, Any]:
        del args
        if self._attempts.live:
            raise RefusedError(TRANSIENT, f"{len(self._attempts.live)} payloads run")
        self._leave.set()
        return {}

    def _sigterm(self) -> None:
        if self._attempts.live:
            log(f"SIGTERM ignored: {len(self._attempts.live)} payloads run")
        else:
            self._leave.set()

    def _consider_leaving(self) -> None:
        self._stop_idling()
        if not self._clients and not self._attempts.live:
            loop = asyncio.get_running_loop()
            self._idle_timer = loop.call_later(self._idle_s, self._leave.set)

    def _stop_idling(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None

    def _plant(self, spec: LaunchSpec) -> Tree:
        bases = self._setup.bases
        try:
            limits.folders(bases, spec.limits)
        except ValueError as exc:
            raise RefusedError(PERMANENT, str(exc)) from exc
        if bases.kill is None:
            return MarkedTree(self._identity.home, spec.key)
        return GroupTree(bases, spec.key, spec.limits)

    def _sole_end(self) -> None:
        """Kill all there is: without groups, but with a namespace, this is certain."""
        if self._setup.bases.kill is None and self._setup.mode != PLAIN and os.getpid() == 1:
            with suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        days = float(os.environ.get(_KEEP_ENV) or _KEEP_DAYS)
        loop.run_in_executor(self._pool, self._records.remove_tombstones, days)
        loop.call_later(_SWEEP_S, self._sweep)

    def _spawn_task(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def serve(setup: Setup, ready: Callable[[], None]) -> None:
    """Be the launcher; returns when it has left."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)

    async def run() -> None:
        await Server(setup).run(ready)

    asyncio.run(run())


def _listen() -> socket.socket:
    """Replace the socket file in one step, so that no client meets a missing one.

    The name is relative: the home's own path may be longer than a socket address.
    """
    temporary = f"{SOCKET}.{os.getpid()}.tmp"
    with suppress(FileNotFoundError):
        Path(temporary).unlink()
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    found.bind(temporary)
    Path(temporary).chmod(0o600)
    found.listen(_BACKLOG)
    found.setblocking(False)  # noqa: FBT003 - the standard library's signature
    Path(temporary).rename(SOCKET)
    return found


def _key(args: dict[str, Any]) -> str:
    key = str(args["key"])
    check_key(key)
    return key
