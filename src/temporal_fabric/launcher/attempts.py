"""The life of an attempt inside the launcher: intent, fork, running, end.

Disk work runs in a pool; forking, reaping and the table of live attempts belong to the main
thread. One reaper collects every child, so nothing else here may wait for processes.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from signal import SIGCONT, SIGKILL, SIGTERM
from typing import TYPE_CHECKING, TypeVar

from temporal_fabric.failpoints import FailPoint, reach
from temporal_fabric.launcher import freezing, log_cap, process
from temporal_fabric.launcher.commands import Commands
from temporal_fabric.launcher.journal import log
from temporal_fabric.launcher.live import Attempt
from temporal_fabric.launcher.protocol import (
    TRANSIENT,
    LaunchRecord,
    LaunchSpec,
    RefusedError,
)
from temporal_fabric.launcher.wall_limit import WallLimit

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine
    from concurrent.futures import Executor
    from resource import struct_rusage

    from temporal_fabric.launcher.cgroups import Usage
    from temporal_fabric.launcher.live import Identity
    from temporal_fabric.launcher.records import Records
    from temporal_fabric.launcher.trees import Tree

_T = TypeVar("_T")

_RETRY_S = 1.0
_LONGEST_POLL_S = 0.5


class _KeyLock:
    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0


class Supervisor:
    """All attempts of this launcher."""

    def __init__(
        self,
        identity: Identity,
        records: Records,
        plant: Callable[[LaunchSpec], Tree],
        around: process.Surroundings,
        pool: Executor,
    ) -> None:
        self._identity, self._records, self._plant = identity, records, plant
        self._around, self._pool = around, pool
        self.commands = Commands(identity, around)
        self._pids: dict[int, Attempt] = {}
        self._locks: dict[str, _KeyLock] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.live: dict[str, Attempt] = {}
        self.on_end: Callable[[], None] = lambda: None
        self.sole_end: Callable[[], None] = lambda: None
        """Called when the main process of the only attempt has ended, before its tree is."""

    async def start(self, spec: LaunchSpec) -> LaunchRecord:
        """Run the attempt unless its key is known; return what is known."""
        async with self._locked(spec.key):
            found = await self.query(spec.key)
            if found.state == "intent" and spec.key not in self.live:
                # Its intent could be neither confirmed nor taken back: it was never forked.
                await self._in_pool(lambda: self._records.remove(spec.key))
            elif found.state != "absent":
                return found
            return await self._launch(spec)

    async def query(self, key: str) -> LaunchRecord:
        """Return what is known about a key."""
        if attempt := self.live.get(key):
            return attempt.record
        return self._records.read(key) or LaunchRecord(key, "absent")

    async def wait(self, key: str, timeout_s: float) -> LaunchRecord:
        """Wait for the end, at most for some time."""
        if attempt := self.live.get(key):
            await asyncio.wait([attempt.ended], timeout=timeout_s)
        return await self.query(key)

    async def terminate(self, key: str, grace_s: float) -> LaunchRecord:
        """End an attempt, or forbid it; return when that is durable and nothing runs."""
        while True:
            if attempt := self.live.get(key):
                self._stop(attempt, "terminated", grace_s)
                return await asyncio.shield(attempt.ended)
            async with self._locked(key):
                if key not in self.live:
                    return await self._forbid(key)

    async def freeze(self, key: str) -> LaunchRecord:
        """Stop a live attempt's whole tree; return what is known of the key."""
        attempt = self.live.get(key)
        return await (freezing.freeze(attempt, self._pool) if attempt else self.query(key))

    async def thaw(self, key: str) -> LaunchRecord:
        """Let a live attempt's whole tree go on; return what is known of the key."""
        attempt = self.live.get(key)
        return await (freezing.thaw(attempt, self._pool) if attempt else self.query(key))

    async def forget(self, key: str) -> None:
        """Turn the record of an ended attempt into a tombstone."""
        async with self._locked(key):
            record = await self.query(key)
            if record.state in {"intent", "running"}:
                raise RefusedError(TRANSIENT, f"the payload still runs [key={key}]")
            if record.state != "absent":
                await self._in_pool(lambda: self._records.entomb(record))

    def reap(self) -> None:
        """Collect every dead child: payloads by the table, orphans silently."""
        with suppress(ChildProcessError):
            while True:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
                if pid == 0:
                    return
                # From here on the pid may be reused.
                if attempt := self._pids.pop(pid, None):
                    attempt.pid, attempt.reaped = None, True
                    self._spawn_task(self._finish(attempt, status, usage))
                else:
                    self.commands.reaped(pid, status)

    async def _forbid(self, key: str) -> LaunchRecord:
        found = await self.query(key)
        if found.state not in {"absent", "intent"}:
            return found
        record = LaunchRecord(key, "ended", why="forbidden", ended_at=time.time())
        await self._in_pool(lambda: self._records.entomb(record))
        return record

    async def _launch(self, spec: LaunchSpec) -> LaunchRecord:
        identity = self._identity
        record = LaunchRecord(
            spec.key, "intent", boot_id=identity.boot_id, incarnation=identity.incarnation
        )
        try:
            attempt = Attempt(spec, record, self._plant(spec))
        except OSError as exc:
            raise RefusedError(TRANSIENT, f"no control group [key={spec.key}]: {exc}") from exc
        attempt.wall = WallLimit(spec.wall_s, lambda: self._stop(attempt, "wall", spec.grace_s))
        self.live[spec.key] = attempt
        try:
            await self._in_pool(lambda: self._records.write(record, durable=True, argv=spec.argv))
        except OSError as exc:
            await self._take_back(attempt)
            raise RefusedError(TRANSIENT, f"no record [key={spec.key}]: {exc}") from exc
        if attempt.why is not None:
            await self._end(attempt, record)
            return attempt.record
        try:
            reach(FailPoint.LAUNCHER_INTENT)
            child = self._fork(attempt)
            reach(FailPoint.LAUNCHER_FORKED)
        except OSError as exc:
            await self._take_back(attempt)
            raise RefusedError(TRANSIENT, f"no process [key={spec.key}]: {exc}") from exc
        await self._follow(attempt, child)
        return await attempt.ended if attempt.error else attempt.record

    async def _take_back(self, attempt: Attempt) -> None:
        key = attempt.spec.key
        with suppress(OSError):
            await self._in_pool(lambda: self._records.remove(key))
        await self._in_pool(attempt.tree.remove)
        del self.live[key]
        if attempt.why is not None:
            # Someone asked for its end while the record was being tried.
            attempt.ended.set_exception(RefusedError(TRANSIENT, f"no record [key={key}]"))
            attempt.ended.exception()
        self.on_end()

    def _fork(self, attempt: Attempt) -> process.Child:
        spec = attempt.spec
        env = spec.env | self._identity.marks(spec.key)
        child = process.spawn(spec, env, attempt.tree.groups(), self._around)
        # No await since the fork: the reaper cannot have seen the child yet.
        attempt.pid, attempt.report, attempt.door = child.pid, child.report, child.door
        self._pids[child.pid] = attempt
        attempt.tree.created(child.pid)
        return child

    async def _follow(self, attempt: Attempt, child: process.Child) -> None:
        try:
            attempt.error = await self._let_go(attempt, child)
        finally:
            attempt.tried.set()
        if not attempt.error and not attempt.reaped:
            attempt.wall.go()
            if attempt.log_cap is not None:
                following = log_cap.follow(attempt.log_cap, self._pool, lambda: attempt.reaped)
                self._spawn_task(following)

    async def _let_go(self, attempt: Attempt, child: process.Child) -> str:
        """Write the ``running`` record, release the child, return why it did not exec."""
        host_pid = await child.host_pid()
        running = replace(
            attempt.record,
            state="running",
            pid=host_pid,
            start_time=child.start_time,
            started_at=time.time(),
        )
        error = ""
        try:
            # The page cache outlives this process, and a power cut changes the boot id.
            argv = attempt.spec.argv
            await self._in_pool(lambda: self._records.write(running, durable=False, argv=argv))
            attempt.record = running
        except OSError as exc:
            error = f"the record cannot be written: {exc}"
        reach(FailPoint.LAUNCHER_RECORDED)
        child.release(run=not error and host_pid is not None)
        reach(FailPoint.LAUNCHER_RELEASED)
        return await child.error() or error

    def _stop(self, attempt: Attempt, why: str, grace_s: float) -> None:
        """Ask the tree to end; a second call can only shorten the grace."""
        if attempt.reaped:
            return  # it ended by itself, its tree is being cleared
        attempt.why = attempt.why or why
        loop = asyncio.get_running_loop()
        kill_at = loop.time() + grace_s
        if attempt.pid is None or kill_at >= attempt.kill_at:
            return
        if attempt.kill_at == float("inf") and grace_s > 0:
            self._spawn_task(self._ask(attempt))
        attempt.wall.drop()
        self._spawn_task(self._thaw(attempt))
        attempt.kill_at = kill_at
        attempt.arm("kill", grace_s, lambda: self._kill(attempt))

    async def _ask(self, attempt: Attempt) -> None:
        await attempt.tried.wait()
        if attempt.reaped:
            return
        await self._in_pool(lambda: attempt.tree.signal(SIGTERM))
        # A stopped process would not hear it.
        await self._in_pool(lambda: attempt.tree.signal(SIGCONT))

    async def _thaw(self, attempt: Attempt) -> None:
        # What stands still hears no SIGTERM, and in version 1 no SIGKILL either.
        await freezing.thaw(attempt, self._pool)

    def _kill(self, attempt: Attempt) -> None:
        if attempt.pid is not None:
            # Not reaped, so the pid is still the payload's; the rest follows its end.
            os.kill(attempt.pid, SIGKILL)

    async def _finish(self, attempt: Attempt, status: int, rusage: struct_rusage) -> None:
        """Bring the rest of the tree down, then make the end durable, then tell."""
        attempt.disarm("kill")
        attempt.wall.drop()
        await attempt.tried.wait()
        await self.commands.end_all(attempt)
        await self._clear(attempt)
        usage = await self._in_pool(attempt.tree.usage)
        record = _counted(attempt.record, usage, rusage)
        if attempt.log_cap is not None:
            dropped = await log_cap.finish(attempt.log_cap, self._pool)
            record = replace(record, log_dropped_bytes=dropped)
        if attempt.report is not None:
            status, failure = attempt.report.outcome(status)
            attempt.error = attempt.error or failure
        code = os.waitstatus_to_exitcode(status)
        if attempt.error:
            attempt.why = "exec"
        elif code < 0:
            record = replace(record, signal=-code)
        else:
            record = replace(record, exit_code=code)
        await self._end(attempt, record)

    async def _clear(self, attempt: Attempt) -> None:
        pause_s = 0.001
        if len(self.live) == 1:
            self.sole_end()
        while not await self._in_pool(attempt.tree.empty):
            await self._in_pool(attempt.tree.kill)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_POLL_S)

    async def _end(self, attempt: Attempt, record: LaunchRecord) -> None:
        record = replace(
            record,
            state="ended",
            ended_at=time.time(),
            why=attempt.why,
            error=attempt.error or None,
            frozen_at=None,
        )
        argv = attempt.spec.argv
        reach(FailPoint.LAUNCHER_ENDED)
        while True:
            try:
                await self._in_pool(lambda: self._records.write(record, durable=True, argv=argv))
            except OSError as exc:
                # Nobody hears of an end that a power cut could take back.
                log(f"end of {record.key} not written: {exc}")
                await asyncio.sleep(_RETRY_S)
            else:
                break
        reach(FailPoint.LAUNCHER_TOLD)
        await self._in_pool(attempt.tree.remove)
        attempt.record = record
        del self.live[record.key]
        attempt.ended.set_result(record)
        self.on_end()

    @asynccontextmanager
    async def _locked(self, key: str) -> AsyncGenerator[None]:
        lock = self._locks.setdefault(key, _KeyLock())
        lock.users += 1
        try:
            async with lock.lock:
                yield
        finally:
            # Keeping no history keeps the process small, and a small process forks fast.
            lock.users -= 1
            if not lock.users:
                del self._locks[key]

    def _spawn_task(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()):
            log(f"a task failed: {exc!r}")

    async def _in_pool(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


def _counted(record: LaunchRecord, usage: Usage, rusage: struct_rusage) -> LaunchRecord:
    """Add the counters: the tree's where known, else the main process's own."""
    peak, cpu = usage.max_rss_bytes, usage.cpu_s
    return replace(
        record,
        oom_kills=usage.oom_kills,
        max_rss_bytes=rusage.ru_maxrss * 1024 if peak is None else peak,
        cpu_s=rusage.ru_utime + rusage.ru_stime if cpu is None else cpu,
    )
