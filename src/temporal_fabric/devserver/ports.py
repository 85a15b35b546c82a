"""Ports of a server: which are free, and which a process really listens on."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from temporal_fabric.errors import DevServerError

if TYPE_CHECKING:
    from collections.abc import Generator

UI_OFFSET = 1000

_LAST_PORT = 65535
_LOOK_AHEAD = 200
_LISTENING = "0A"


@dataclass(frozen=True)
class Ports:
    """Where a server listens."""

    ip: str
    grpc: int
    ui: int | None

    @property
    def address(self) -> str:
        """Where a client on this machine connects."""
        return f"{self._host}:{self.grpc}"

    @property
    def ui_url(self) -> str | None:
        """Where a browser on this machine finds the web UI."""
        return None if self.ui is None else f"http://{self._host}:{self.ui}"

    @property
    def wanted(self) -> set[int]:
        """The ports that must be open before the server is ready."""
        return {self.grpc} if self.ui is None else {self.grpc, self.ui}

    @property
    def _host(self) -> str:
        parsed = ip_address(self.ip)
        if parsed.version == 4:  # noqa: PLR2004 - the protocol's own name
            return "127.0.0.1" if parsed.is_unspecified else self.ip
        return "[::1]" if parsed.is_unspecified else f"[{self.ip}]"


@contextmanager
def claimed_ports(ip: str, port: int, *, ui: bool, strict: bool) -> Generator[Ports]:
    """Choose free ports, from the wanted one upwards; port 0 means any.

    Until the context ends no other starter of this machine chooses the same ones. Another
    program may still take one before the server binds it: the caller then tries again.

    Raises:
        DevServerError: nothing is free, or the wanted port is not and `strict` is set.
    """
    with ExitStack() as claims:
        if port == 0:
            grpc = _any_free(ip, claims)
        elif strict and not _claim(ip, port, claims):
            raise DevServerError(
                f"the port is taken [ip={ip}, port={port}]; "
                "choose another port, or allow the next free one"
            )
        else:
            grpc = port if strict else _next_free(ip, port, claims)
        if not ui:
            yield Ports(ip, grpc, None)
        elif port == 0 or grpc + UI_OFFSET > _LAST_PORT:
            yield Ports(ip, grpc, _any_free(ip, claims))
        else:
            yield Ports(ip, grpc, _next_free(ip, grpc + UI_OFFSET, claims))


def is_free(ip: str, port: int) -> bool:
    """Return whether a server could listen on the port now."""
    with _socket(ip) as probe:
        try:
            probe.bind((ip, port))
            # Two sockets may be bound to one port; only one of them may listen.
            probe.listen(1)
        except OSError:
            return False
    return True


def listens(pid: int, ports: Ports) -> bool:
    """Return whether this very process listens on all the ports it was given.

    An answering port is not enough: after a lost race another server answers on it.
    """
    if sys.platform != "linux":
        return all(not is_free(ports.ip, port) for port in ports.wanted)
    inodes = _socket_inodes(pid)
    found: set[int] = set()
    for table in ("tcp", "tcp6"):
        found |= _listening_ports(Path(f"/proc/{pid}/net/{table}"), inodes)
    return ports.wanted <= found


def _socket(ip: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    probe = socket.socket(family, socket.SOCK_STREAM)
    # As the server does: a port in TIME_WAIT after a killed server counts as free.
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return probe


def _claim(ip: str, port: int, claims: ExitStack) -> bool:
    if sys.platform == "linux":
        # A name without a file: it is unique where ports are, in the network namespace,
        # and gone with its process.
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            claim.bind(f"\0temporal-fabric/port/{port}")
        except OSError:
            claim.close()
            return False
        claims.enter_context(claim)
    return is_free(ip, port)


def _any_free(ip: str, claims: ExitStack) -> int:
    while True:
        with _socket(ip) as probe:
            probe.bind((ip, 0))
            port = int(probe.getsockname()[1])
        if _claim(ip, port, claims):
            return port


def _next_free(ip: str, first: int, claims: ExitStack) -> int:
    last = min(first + _LOOK_AHEAD, _LAST_PORT)
    for port in range(first, last + 1):
        if _claim(ip, port, claims):
            return port
    raise DevServerError(
        f"no free port [ip={ip}, from={first}, to={last}]; "
        "check that the address belongs to this machine, or choose another port"
    )


def _socket_inodes(pid: int) -> set[str]:
    inodes: set[str] = set()
    # The process or one of its files may go away while being looked at: look again later.
    with suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208 - no Path is needed
            with suppress(OSError):
                target = os.readlink(f"/proc/{pid}/fd/{name}")  # noqa: PTH115 - "socket:[123]"
                if target.startswith("socket:["):
                    inodes.add(target[len("socket:[") : -1])
    return inodes


def _listening_ports(table: Path, inodes: set[str]) -> set[int]:
    try:
        lines = table.read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return set()
    rows = (line.split() for line in lines)
    return {
        int(row[1].rpartition(":")[2], 16)
        for row in rows
        if row[3] == _LISTENING and row[9] in inodes
    }
