"""A Temporal cluster as a team runs it: PostgreSQL and the four services, each a process.

The server and its schema tool are built from the pinned Go modules, PostgreSQL is the
machine's own (Debian's package). Everything listens on the loopback address and can be killed
and started again, which is what tests do with it. Nothing outlives the process that started it.

``python -m temporal_fabric.testing.cluster`` makes what a cluster needs and says where it lies;
it ends with 75 where this machine cannot have it.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from temporal_fabric.devserver.cache import SERVER, SQL_TOOL
from temporal_fabric.devserver.ports import is_free
from temporal_fabric.devserver.resolve import built_programs
from temporal_fabric.errors import DevServerError

if TYPE_CHECKING:
    from collections.abc import Mapping

SERVICES = ("frontend", "history", "matching", "worker")
DATABASE = "postgresql"

_IP = "127.0.0.1"
_USER = "temporal"
_SCHEMAS = {"temporal": "temporal", "temporal_visibility": "visibility"}
_SHARDS = 4
_PORTS = range(15000, 32000)
_START_S = 180.0
_STOP_S = 20.0
_LOOK_S = 0.1
_RETENTION_S = 24 * 3600
_CANNOT = 75


class ClusterUnavailable(Exception):
    """This machine cannot run a cluster; the message says what is missing."""


@dataclass(frozen=True)
class Parts:
    """The programs of a cluster."""

    server: Path
    sql_tool: Path
    postgres: Path
    initdb: Path

    @classmethod
    def find(cls) -> Parts:
        """Find PostgreSQL, build or find the rest.

        Raises:
            ClusterUnavailable: something is missing, with what to do.
        """
        if shutil.which("setpriv") is None:
            raise ClusterUnavailable("there is no setpriv (Debian's package util-linux)")
        postgres, initdb = (_postgres_program(name) for name in ("postgres", "initdb"))
        try:
            server, sql_tool = built_programs([SERVER, SQL_TOOL])
        except DevServerError as exc:
            raise ClusterUnavailable(str(exc)) from exc
        return cls(server, sql_tool, postgres, initdb)


class Cluster:
    """One cluster in a folder of its own.

    Args:
        dynamic_config: The server's dynamic configuration, as a team gives it.
    """

    def __init__(self, dynamic_config: Path) -> None:
        self._parts = Parts.find()
        self._folder = Path(tempfile.mkdtemp(prefix="cluster"))
        self._ports = _free_ports(DATABASE, *SERVICES, *(f"{name}-ring" for name in SERVICES))
        self._dynamic_config = dynamic_config.absolute()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def address(self) -> str:
        """Where clients connect."""
        return f"{_IP}:{self._ports['frontend']}"

    async def start(self) -> None:
        """Bring everything up and return when the namespace takes workflows.

        Raises:
            RuntimeError: a part did not come up; the message has its last words.
        """
        self._folder.chmod(0o755)  # the database's user goes through it
        data = self._data
        data.mkdir(mode=0o700)
        if (owner := _database_user()) is not None:
            os.chown(data, owner.pw_uid, owner.pw_gid)
        settings = ["-U", _USER, "-A", "trust", "--locale=C", "-E", "UTF8"]
        _run([*_as_database_user(), str(self._parts.initdb), "-D", str(data), *settings], cwd=data)
        self.start_part(DATABASE)
        self._make_schemas()
        for service in SERVICES:
            self.start_part(service)
        await self._make_namespace()

    def start_part(self, name: str) -> None:
        """Start the database or a service, and return when it listens."""
        port = self._ports[name]
        deadline = time.monotonic() + _START_S
        process = self._spawn(name)
        while not _listens(port):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{name} opens no port:\n{self._last_words(name)}")
            if process.poll() is not None:
                # After a kill the old database's processes take a moment to go.
                time.sleep(_LOOK_S)
                process = self._spawn(name)
            time.sleep(_LOOK_S)

    def kill_part(self, name: str) -> None:
        """SIGKILL the database or a service."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def keep_up(self) -> None:
        """Start again what has ended by itself, as the manager of a team's services does.

        A service that finds no database while it starts ends.
        """
        for name, process in list(self._processes.items()):
            if process.poll() is not None:
                self.start_part(name)

    def stop(self) -> None:
        """End everything, in order where that takes no longer than some seconds."""
        for name in (*SERVICES, DATABASE):
            process = self._processes.pop(name, None)
            if process is None:
                continue
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _spawn(self, name: str) -> subprocess.Popen[bytes]:
        # A test run that is killed must not leave a cluster behind.
        argv = ["setpriv", "--pdeathsig=KILL"]
        if name == DATABASE:
            argv = [*_as_database_user(), str(self._parts.postgres), "-D", str(self._data)]
            for setting in (
                f"port={self._ports[DATABASE]}",
                f"listen_addresses={_IP}",
                "unix_socket_directories=",
                "max_connections=300",
            ):
                argv += ["-c", setting]
        else:
            argv += [str(self._parts.server), "--allow-no-auth", "start", "--service", name]
        with self._log(name).open("ab") as log:
            self._processes[name] = subprocess.Popen(
                argv,
                cwd=self._folder,
                env=_environment() | self._settings(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self._processes[name]

    def _settings(self) -> dict[str, str]:
        """Return what the official image's template of the configuration reads."""
        ports = {
            f"{name.upper()}_{kind}_PORT": str(self._ports[key])
            for name in SERVICES
            for kind, key in (("GRPC", name), ("MEMBERSHIP", f"{name}-ring"))
        }
        return ports | {
            "DB": "postgres12",
            "POSTGRES_SEEDS": _IP,
            "DB_PORT": str(self._ports[DATABASE]),
            "POSTGRES_USER": _USER,
            "POSTGRES_PWD": "",
            "BIND_ON_IP": _IP,
            "TEMPORAL_BROADCAST_ADDRESS": _IP,
            "NUM_HISTORY_SHARDS": str(_SHARDS),
            "DYNAMIC_CONFIG_FILE_PATH": str(self._dynamic_config),
            "LOG_LEVEL": "warn",
        }

    def _make_schemas(self) -> None:
        env = _environment() | {
            "SQL_PLUGIN": "postgres12",
            "SQL_HOST": _IP,
            "SQL_PORT": str(self._ports[DATABASE]),
            "SQL_USER": _USER,
            "SQL_PASSWORD": "",
        }
        for database, schema in _SCHEMAS.items():
            for step in (
                ["create"],
                ["setup-schema", "-v", "0.0"],
                ["update-schema", "-s", f"postgresql/v12/{schema}"],
            ):
                argv = [str(self._parts.sql_tool), "--db", database, *step]
                _run(argv, cwd=self._folder, env=env)

    async def _make_namespace(self) -> None:
        """Only the development server makes one by itself."""
        deadline = time.monotonic() + _START_S
        request = RegisterNamespaceRequest(
            namespace="default",
            workflow_execution_retention_period=Duration(seconds=_RETENTION_S),
        )
        while True:
            try:
                client = await Client.connect(self.address)
                await _register(client, request)
                # The frontend itself learns of it after a moment.
                await client.count_workflows()
            except (RuntimeError, RPCError) as exc:
                if time.monotonic() > deadline:
                    words = self._last_words("frontend")
                    raise RuntimeError(f"the cluster takes no work: {exc}\n{words}") from exc
                await asyncio.sleep(_LOOK_S)
            else:
                return

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _last_words(self, name: str) -> str:
        return "\n".join(self._log(name).read_text(errors="replace").splitlines()[-20:])


async def _register(client: Client, request: RegisterNamespaceRequest) -> None:
    try:
        await client.workflow_service.register_namespace(request)
    except RPCError as exc:
        if exc.status != RPCStatusCode.ALREADY_EXISTS:
            raise


def _postgres_program(name: str) -> Path:
    """Find the newest PostgreSQL: Debian keeps its server's programs off PATH."""
    folders = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parts[-2])
    )
    found = shutil.which(name, path=os.pathsep.join(map(str, reversed(folders))))
    found = found or shutil.which(name)
    if found is None:
        raise ClusterUnavailable(f"there is no {name} (Debian's package postgresql)")
    return Path(found)


def _database_user() -> pwd.struct_passwd | None:
    """Return whom the database runs as: root's own programs refuse root; None is oneself."""
    if os.getuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError as exc:
        raise ClusterUnavailable("there is no user postgres (Debian's package postgresql)") from exc


def _as_database_user() -> list[str]:
    owner = _database_user()
    own = ["setpriv", "--pdeathsig=KILL"]
    if owner is None:
        return own
    return [*own, f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]


def _environment() -> dict[str, str]:
    # A client's settings are not meant for the server, nor a proxy's.
    return {key: os.environ[key] for key in ("PATH", "HOME", "TZ", "TMPDIR") if key in os.environ}


def _run(argv: list[str], *, cwd: Path, env: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{argv} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((_IP, port)) == 0


def _free_ports(*wanted: str) -> dict[str, int]:
    """Choose free ports that the database can hold: it keeps a service's port in 16 bits, signed.

    They lie below the range from which the kernel takes ports for outgoing connections.
    """
    found: set[int] = set()
    while len(found) < len(wanted):
        port = _PORTS[secrets.randbelow(len(_PORTS))]
        if is_free(_IP, port):
            found.add(port)
    return dict(zip(wanted, found, strict=True))


def _main() -> None:
    try:
        parts = Parts.find()
        _database_user()
    except ClusterUnavailable as exc:
        print(exc)
        sys.exit(_CANNOT)
    print(f"server {parts.server}, database {parts.postgres}")


if __name__ == "__main__":
    _main()
