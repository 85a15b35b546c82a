"""Start the server process: own session, inherited lock, bound to the parent if asked."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import Future
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

from temporal_fabric.devserver.home import DB_FILE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from temporal_fabric.devserver.ports import Ports

    _Start = Callable[[], subprocess.Popen[bytes]]

DEFAULT_LOG_LEVEL = "warn"

_SHIM = Path(__file__).with_name("shim.py")
_FULL, _NORMAL = 2, 1

# Each was measured on the pinned version; the server accepts unknown keys in silence.
DYNAMIC_CONFIG = {
    "matching.enableFairness": "true",
    # More than one partition makes priority and weights approximate.
    "matching.numTaskqueueReadPartitions": "1",
    "matching.numTaskqueueWritePartitions": "1",
    "frontend.WorkflowPauseEnabled": "true",
    # A development server has these two by itself, another server does not.
    "activity.enableStandalone": "true",
    "frontend.namespaceRPS.visibility": "100",
    # The default of 20 a second costs 50 ms for every step of a workflow.
    "history.transferProcessorMaxPollRPS": "2000",
    "history.timerProcessorMaxPollRPS": "2000",
    "history.visibilityProcessorMaxPollRPS": "2000",
    "history.outboundProcessorMaxPollRPS": "2000",
}


def server_command(
    cli: Path,
    ports: Ports,
    *,
    durable: bool,
    log_level: str,
    search_attributes: Mapping[str, str],
) -> list[str]:
    """Return the command line of a server with the dev profile; it runs in the home."""
    command = [str(cli), "server", "start-dev"]
    # Unsaid, the same level also drops the warnings of an orderly end.
    command += [] if log_level == DEFAULT_LOG_LEVEL else ["--log-level", log_level]
    command += ["--ip", ports.ip, "--port", str(ports.grpc)]
    command += ["--headless"] if ports.ui is None else ["--ui-port", str(ports.ui)]
    # The path goes unescaped into a URI, where % and ? have a meaning: keep it relative.
    command += ["--db-filename", DB_FILE]
    synchronous = _FULL if durable else _NORMAL
    for pragma in ("journal_mode=WAL", f"synchronous={synchronous}"):
        command += ["--sqlite-pragma", pragma]
    for key, value in DYNAMIC_CONFIG.items():
        command += ["--dynamic-config-value", f"{key}={value}"]
    for name, kind in search_attributes.items():
        command += ["--search-attribute", f"{name}={kind}"]
    return command


def spawn(
    command: list[str], *, home: Path, log: Path, lock: int, die_with_parent: bool
) -> subprocess.Popen[bytes]:
    """Start a server command in the home; its pid is the server's own.

    With `die_with_parent` the kernel kills it when this process goes, however it goes.
    """
    parent = os.getpid() if die_with_parent else 0
    argv = [sys.executable, "-I", "-S", str(_SHIM), str(lock), str(parent), *command]
    # Client settings in the environment are not meant for the server.
    env = {key: value for key, value in os.environ.items() if not key.startswith("TEMPORAL_")}

    def popen() -> subprocess.Popen[bytes]:
        with log.open("ab") as stream:
            return subprocess.Popen(
                argv,
                cwd=home,
                env=env,
                pass_fds=(lock,),
                # Ctrl-C in the terminal reaches the starter only, which stops us in order.
                start_new_session=True,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                stdout=stream,
            )

    return _spawner(os.getpid()).call(popen) if die_with_parent else popen()


class _Spawner:
    """Forks from a thread that lives as long as this process.

    The kernel's "parent" is the thread that forked: a server started from a thread of a
    pool would be killed when the pool shrinks.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[_Start, Future[subprocess.Popen[bytes]]]] = SimpleQueue()
        threading.Thread(target=self._work, name="devserver-parent", daemon=True).start()

    def call(self, start: _Start) -> subprocess.Popen[bytes]:
        """Run on the lasting thread and wait."""
        future: Future[subprocess.Popen[bytes]] = Future()
        self._calls.put((start, future))
        return future.result()

    def _work(self) -> None:
        while True:
            start, future = self._calls.get()
            try:
                future.set_result(start())
            except OSError as exc:
                future.set_exception(exc)


@cache
def _spawner(pid: int) -> _Spawner:
    """Return this process's spawner; a forked child has the memory but not the thread."""
    del pid
    return _Spawner()
