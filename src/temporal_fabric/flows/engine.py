"""The worker's side of a warm process: asks it, starts it anew when it dies, ends it.

JAX is never loaded in the worker. One process serves all flows of a device, so that a program is
compiled once for each shape; what was compiled is kept on disk too, and a new process finds it
there.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from temporal_fabric.errors import (
    FlowProcessDied,
    PermanentBackendError,
    Problem,
    RequestRejected,
    TransientBackendError,
)

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from pathlib import Path

__all__ = ["FlowEngine", "passed_on"]

_PASSED_ON = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "TMPDIR", "TZ", "USER")
_PASSED_PREFIXES = ("CUDA_", "JAX_", "NVIDIA_", "OMP_", "PYTHON", "XLA_")
_LINE = 64 << 20
_DEATHS = 3
"""How often a process may die of one request before that is taken for its fault."""


class _Died(Exception):
    """The process ended before it answered."""

    def __init__(self, code: int, *, first: bool, wanted: bool) -> None:
        self.code = code
        self.wanted = wanted
        """Whether it was ended on purpose, because of another request."""

        self.first = first
        """Whether this request was the one under way."""

        super().__init__(code)


def passed_on() -> dict[str, str]:
    """Return the worker's variables that a process with JAX sees."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED_ON or name.startswith(_PASSED_PREFIXES)
    }


class FlowEngine:
    """A warm process; started with the first request.

    Args:
        cache: Folder of what was compiled.
        log: File of what the process says.
        forbidden: Folders and epochs of which nothing is to be done any more.
    """

    def __init__(self, cache: Path, log: Path, forbidden: set[tuple[str, int]]) -> None:
        self._cache, self._log = cache, log
        self._env: dict[str, str] = {}
        self._label = ""
        self._starting = asyncio.Lock()
        self._process: Process | None = None
        self._ended: Process | None = None
        """The last one that was ended on purpose."""

        self._reading: asyncio.Task[None] | None = None
        self._pending: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._of: dict[int, tuple[str, int]] = {}
        """What folder and epoch a pending request is about."""

        self._forbidden = forbidden
        self._last = 0

    def set_up(self, env: dict[str, str], label: str) -> None:
        """Give the process further variables, and a word on its devices, before it is started."""
        self._env, self._label = env, label

    @property
    def native_id(self) -> str:
        """What the process is called on this host; empty where there is none."""
        if self._process is None:
            return ""
        return ", ".join(filter(None, ("jax", f"pid {self._process.pid}", self._label)))

    async def ask(self, op: str, folder: Path, args: dict[str, Any]) -> dict[str, Any]:
        """Have something done; a process that dies meanwhile is replaced, and asked again.

        A cancellation is passed on: the request is forgotten, or the process is ended with it.

        Raises:
            RequestRejected: the specification has problems.
            TransientBackendError: the disk is full or gone, or the process cannot be started.
            PermanentBackendError: it cannot be done, or was forbidden.
            FlowProcessDied: the process died of it time and again.
        """
        key, deaths = (str(folder), int(args["epoch"])), 0
        request: dict[str, Any] = {"op": op, "folder": str(folder), "args": args}
        while True:
            if key in self._forbidden:
                raise PermanentBackendError(f"epoch {key[1]} has ended [run={folder}]")
            try:
                answer = await self._asked(request)
            except _Died as died:
                if died.wanted:
                    continue
                deaths += died.first
                if deaths < _DEATHS:
                    # By itself, so that it is known who dies of what.
                    request["alone"] = True
                    continue
                raise FlowProcessDied(
                    f"the process of JAX died {deaths} times of the same step: {_how(died.code)}"
                ) from died
            if "ok" in answer:
                found: dict[str, Any] = answer["ok"]
                return found
            raise _error(answer["error"])

    async def forbid(self, folder: Path, epoch: int) -> None:
        """Return when nothing of an epoch is being done, and nothing of it ever will be."""
        key = (str(folder), epoch)
        self._forbidden.add(key)
        for number, of in list(self._of.items()):
            if of == key:
                await self._forget(number)

    async def aclose(self) -> None:
        """End the process; what it was doing is done again by the next one."""
        await self._end()

    async def _asked(self, request: dict[str, Any]) -> dict[str, Any]:
        number = await self._send(request)
        self._of[number] = (request["folder"], int(request["args"]["epoch"]))
        try:
            return await self._pending[number]
        except asyncio.CancelledError:
            await asyncio.shield(asyncio.create_task(self._forget(number)))
            raise
        finally:
            self._pending.pop(number, None)
            self._of.pop(number, None)

    async def _forget(self, number: int) -> None:
        """Make sure that a request is not being done, and never will be."""
        if self._process is None:
            return
        with suppress(_Died, TransientBackendError):
            asked = await self._send({"op": "forget", "of": number})
            try:
                answer = await self._pending[asked]
            finally:
                self._pending.pop(asked, None)
            if answer["ok"]["running"]:
                await self._end()

    async def _send(self, request: dict[str, Any]) -> int:
        async with self._starting:
            if self._process is None:
                await self._start()
            process = self._process
            self._last = number = self._last + 1
            self._pending[number] = asyncio.get_running_loop().create_future()
        if process is not None and process.stdin is not None:
            with suppress(ConnectionError):
                process.stdin.write(json.dumps(request | {"id": number}).encode() + b"\n")
                await process.stdin.drain()
        return number

    async def _start(self) -> None:
        env = {
            "JAX_COMPILATION_CACHE_DIR": str(self._cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        } | passed_on()
        env |= self._env
        try:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with self._log.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "temporal_fabric.flows.warm",
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=log,
                    env=env,
                    limit=_LINE,
                    # Ctrl-C is for the worker, which ends it.
                    start_new_session=True,
                )
        except OSError as exc:
            raise TransientBackendError(f"the process of JAX cannot be started: {exc}") from exc
        self._reading = asyncio.create_task(self._read(self._process))

    async def _read(self, process: Process) -> None:
        if process.stdout is None:
            return
        while line := await process.stdout.readline():
            answer: dict[str, Any] = json.loads(line)
            waiting = self._pending.get(answer["id"])
            if waiting is not None and not waiting.done():
                waiting.set_result(answer)
        code = await process.wait()
        if self._process is process:
            self._process = None
        lost = [number for number, one in sorted(self._pending.items()) if not one.done()]
        for number in lost:
            died = _Died(code, first=number == lost[0], wanted=process is self._ended)
            self._pending[number].set_exception(died)

    async def _end(self) -> None:
        process, reading = self._process, self._reading
        if process is None or reading is None:
            return
        self._ended = process
        with suppress(ProcessLookupError):
            process.kill()
        await reading


def _error(found: dict[str, Any]) -> Exception:
    if found["kind"] == "rejected":
        return RequestRejected([Problem(*one) for one in found["problems"]])
    kind = TransientBackendError if found["kind"] == "transient" else PermanentBackendError
    return kind(found["message"])


def _how(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"it exited with {code}"
