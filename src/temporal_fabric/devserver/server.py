"""Run the embedded server: one per home, on a database file that outlives it."""

from __future__ import annotations

import signal
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from temporal_fabric.devserver.apart import run_apart
from temporal_fabric.devserver.home import DB_FILE, open_log, owned, set_aside_partial_database
from temporal_fabric.devserver.info import (
    ServerInfo,
    remove_server_info,
    start_time_of,
    write_server_info,
)
from temporal_fabric.devserver.ports import claimed_ports, listens
from temporal_fabric.devserver.resolve import resolve_binary
from temporal_fabric.devserver.spawn import DEFAULT_LOG_LEVEL, server_command, spawn
from temporal_fabric.devserver.steps import indented
from temporal_fabric.errors import DevServerError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from temporal_fabric.devserver.ports import Ports

DEFAULT_PORT = 7233

_ATTEMPTS = 3
_LOOK_S = 0.01
_START_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class _Plan:
    """How a server is to be started; the same for every attempt."""

    cli: Path
    home: Path
    log: Path
    lock: int
    ip: str
    port: int
    ui: bool
    strict_port: bool
    durable: bool
    log_level: str
    die_with_parent: bool
    search_attributes: Mapping[str, str]


class _Ended(Exception):
    """The server process ended before it was ready."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class DevServer:
    """A running embedded server, owned by the process that started it.

    Options of `start`, which may be called inside a running event loop and blocks it:

    - ``home``: folder of the database, the log and ``server.json``; made if missing.
    - ``durable``: True survives power loss, False only the death of processes.
    - ``port``: for clients, or the next free one; 0 means any. ``strict_port`` refuses others.
    - ``ui``: serve the web UI, at the client port + 1000 or the next free one.
    - ``ip``: address to listen on.
    - ``progress``: gets lines about a download or a build.
    - ``log_level``: of ``logs/server.log``.
    - ``die_with_parent``: the server is killed when this process goes, however it goes (Linux).
    - ``search_attributes``: name to type (``Keyword``, ``Int``, ...); registered if missing.
    - ``cli``: the temporal binary, where it is already known.
    """

    def __init__(self, process: subprocess.Popen[bytes], info: ServerInfo, cli: Path) -> None:
        self._process = process
        self.info = info
        self.cli = cli
        """The temporal binary, also usable as its command line client."""

    @classmethod
    def start(
        cls,
        home: Path,
        *,
        durable: bool,
        port: int = DEFAULT_PORT,
        ui: bool = True,
        ip: str = "127.0.0.1",
        progress: Callable[[str], None] | None = None,
        log_level: str = DEFAULT_LOG_LEVEL,
        strict_port: bool = False,
        die_with_parent: bool = False,
        search_attributes: Mapping[str, str] | None = None,
        cli: Path | None = None,
    ) -> DevServer:
        """Start a server and block until it answers; may build first. Options: see the class.

        Raises:
            DevServerError: no binary, no port, another owner, or the server failed.
        """
        home = home.absolute()
        home.mkdir(parents=True, exist_ok=True)
        # The lock comes first: who is refused should not wait for a build before.
        with owned(home) as lock:
            plan = _Plan(
                cli=cli or resolve_binary(progress=progress),
                home=home,
                log=open_log(home),
                lock=lock,
                ip=ip,
                port=port,
                ui=ui,
                strict_port=strict_port,
                durable=durable,
                log_level=log_level,
                die_with_parent=die_with_parent,
                search_attributes=search_attributes or {},
            )
            return cls._started(plan)

    @classmethod
    def _started(cls, plan: _Plan) -> DevServer:
        # A port lost to another program shows in many ways, from a plain message to a crash,
        # and the server also binds ports of its own choice: whatever ended it, try again.
        attempts = _ATTEMPTS
        while True:
            attempts -= 1
            set_aside_partial_database(plan.home)
            said_before = plan.log.stat().st_size
            with claimed_ports(plan.ip, plan.port, ui=plan.ui, strict=plan.strict_port) as ports:
                try:
                    return cls._attempt(plan, ports)
                except _Ended as exc:
                    if attempts == 0:
                        raise _last_words(plan, exc.code, said_before) from None

    @classmethod
    def _attempt(cls, plan: _Plan, ports: Ports) -> DevServer:
        command = server_command(
            plan.cli,
            ports,
            durable=plan.durable,
            log_level=plan.log_level,
            search_attributes=plan.search_attributes,
        )
        process = spawn(
            command,
            home=plan.home,
            log=plan.log,
            lock=plan.lock,
            die_with_parent=plan.die_with_parent,
        )
        try:
            version = _ready(process, ports, plan.search_attributes)
            info = _describe(process, ports, plan.home, version)
            write_server_info(info)
        except BaseException:
            process.kill()
            process.wait()
            raise
        return cls(process, info, plan.cli)

    def poll(self) -> int | None:
        """Return the exit code once the server has ended, None while it runs."""
        return self._process.poll()

    def stop(self, timeout_s: float = 10) -> None:
        """End the server in order, by force after the timeout. A second call does nothing."""
        if self.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.kill()
        remove_server_info(self.info)

    def kill(self) -> None:
        """End the server at once, as a crash would: ``server.json`` stays behind."""
        self._process.kill()
        self._process.wait()


def _ready(process: subprocess.Popen[bytes], ports: Ports, wanted: Mapping[str, str]) -> str:
    """Wait until the process listens and answers; return the server's version."""
    # The SDK costs half a second to import, so only who starts a server pays for it.
    from temporal_fabric.devserver.admin import prepare  # noqa: PLC0415

    deadline = time.monotonic() + _START_TIMEOUT_S
    while not listens(process.pid, ports):
        code = process.poll()
        if code is not None:
            raise _Ended(code)
        if time.monotonic() > deadline:
            raise DevServerError(
                f"the server opened no port in {_START_TIMEOUT_S:.0f} s [pid={process.pid}]"
            )
        time.sleep(_LOOK_S)

    def alive() -> bool:
        return process.poll() is None

    try:
        return run_apart(prepare(ports.address, wanted, alive=alive, deadline=deadline))
    except DevServerError:
        code = process.poll()
        if code is not None:
            raise _Ended(code) from None
        raise


def _describe(
    process: subprocess.Popen[bytes], ports: Ports, home: Path, version: str
) -> ServerInfo:
    # Imported by _ready before, so this costs nothing.
    from temporal_fabric.devserver.admin import NAMESPACE  # noqa: PLC0415

    began = start_time_of(process.pid)
    if began is None:
        raise _Ended(process.wait())
    return ServerInfo(
        address=ports.address,
        ui_url=ports.ui_url,
        pid=process.pid,
        start_time=began,
        namespace=NAMESPACE,
        db=str(home / DB_FILE),
        version=version,
        home=str(home),
    )


def _last_words(plan: _Plan, code: int, said_before: int) -> DevServerError:
    with plan.log.open("rb") as stream:
        stream.seek(said_before)
        said = stream.read().decode("utf-8", "replace")
    return DevServerError(
        f"the embedded server ended before it was ready, {_ATTEMPTS} times "
        f"[exit={code}, log={plan.log}]; its last words:{indented(said)}"
    )
