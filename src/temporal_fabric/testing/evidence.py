"""An append-only ledger owned by a process that is not on trial.

Payloads report over a Unix socket; the ledger's process notes who really called (pid and
start time as the kernel knows them) and appends one JSON line. What a test believes is this
file, never the system's own records.

Run as ``python -m temporal_fabric.testing.evidence SOCKET FILE [IP]``.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

REPORT = (
    "import socket, sys, json, os\n"
    "s = socket.socket(socket.AF_UNIX)\n"
    "s.connect(os.environ['EVIDENCE'])\n"
    "s.sendall(json.dumps({'event': sys.argv[1], 'id': os.environ['FABRIC_REQUEST_ID'],"
    " 'epoch': os.environ['FABRIC_EPOCH']}).encode() + b'\\n')\n"
    "s.recv(1)\n"
)
"""A script for ``python -c`` that reports ``argv[1]`` from inside a payload."""


class EvidenceLedger:
    """Starts and reads a ledger.

    Args:
        folder: Where socket and file lie; the path must be short enough for a socket.
        host: An IP address at which it listens besides, for payloads of another machine.
    """

    def __init__(self, folder: Path, host: str = "") -> None:
        self.socket = folder / "evidence.sock"
        self.file = folder / "evidence.jsonl"
        command = [sys.executable, "-m", __name__, str(self.socket), str(self.file)]
        self.address = ""
        """Where it listens besides, as ``ip:port``."""
        if host:
            with socket.create_server((host, 0)) as found:
                self.address = f"{host}:{found.getsockname()[1]}"
            command.append(self.address)
        self._process = subprocess.Popen(command)
        deadline = time.monotonic() + 10
        while not self.socket.exists():
            if time.monotonic() > deadline:
                raise TimeoutError("the evidence ledger did not start")
            time.sleep(0.01)

    def lines(self, **wanted: str) -> list[dict[str, Any]]:
        """Return the lines so far whose fields equal ``wanted``."""
        rows = [json.loads(line) for line in self.file.read_text().splitlines()]
        return [row for row in rows if all(row.get(key) == wanted[key] for key in wanted)]

    def close(self) -> None:
        """End the ledger's process."""
        self._process.terminate()
        self._process.wait()


def _serve(unix: str, path: str, inet: str = "") -> None:
    ledger = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    listeners: list[socket.socket] = []
    if inet:
        host, _, port = inet.rpartition(":")
        listeners.append(socket.create_server((host, int(port)), backlog=128))
    listeners.append(socket.socket(socket.AF_UNIX))
    listeners[-1].bind(unix)
    listeners[-1].listen(128)
    while True:
        for listener in select.select(listeners, (), ())[0]:
            connection, _ = listener.accept()
            with connection, suppress(ConnectionError):
                _take(connection, ledger)


def _take(connection: socket.socket, ledger: int) -> None:
    pid = 0  # of another machine nobody knows it
    if connection.family == socket.AF_UNIX:
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid = struct.unpack("3i", raw)[0]
    line = json.loads(connection.makefile().readline() or "{}")
    row = {**line, "pid": pid, "start": _start_time(pid), "at": time.time()}
    os.write(ledger, json.dumps(row).encode() + b"\n")
    os.fsync(ledger)
    with suppress(OSError):
        connection.sendall(b"k")


def _start_time(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return 0  # killed while it reported
    return int(stat.rpartition(")")[2].split()[19])


if __name__ == "__main__":
    _serve(*sys.argv[1:])
