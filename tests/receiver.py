"""A receiver of notices in a process of its own, which does what a test tells it.

Run as ``python -m tests.receiver FOLDER PORT``. It behaves as the file ``behaviour`` says and
appends one JSON line for each POST, before it answers.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.artifacts.servers import HOST, certificate

_START_S = 20.0
_POLL_S = 0.02
_DRIP_S = 0.5


class Receiver:
    """Starts, kills and reads a receiver.

    Args:
        folder: Where certificate, behaviour and ledger lie.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._ledger = folder / "posts.jsonl"
        self._ledger.touch()
        certificate(folder / "cert.pem")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = int(free.getsockname()[1])
        self.url = f"https://{HOST}:{self._port}/hook"
        self.config = (
            f"[notify]\nca_file = '{folder / 'cert.pem'}'\nhosts = {{'{HOST}' = '127.0.0.1'}}\n"
        )
        """Text of a ``fabric.toml`` that allows it."""

        self.behave("take")

    def behave(self, how: str) -> None:
        """Answer so from now on: take, hold, drip, a status, or a status and a location."""
        (self._folder / "behaviour").write_text(how)

    def start(self) -> None:
        """Start it, on the same port as before."""
        command = [sys.executable, "-m", "tests.receiver", str(self._folder), str(self._port)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + _START_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port)):
                return
            assert self._process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(_POLL_S)

    def close(self) -> None:
        """Kill it, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def posts(self) -> list[dict[str, Any]]:
        """Return what came so far: ``path``, ``headers`` and ``body`` of each POST."""
        return [json.loads(line) for line in self._ledger.read_text().splitlines()]

    def events(self) -> dict[str, dict[str, Any]]:
        """Return the bodies by key, repeats dropped as a receiver would drop them."""
        return {post["headers"]["Idempotency-Key"]: post["body"] for post in self.posts()}


class _Handler(BaseHTTPRequestHandler):
    folder: Path

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        row = {"path": self.path, "headers": dict(self.headers), "body": body}
        with (self.folder / "posts.jsonl").open("a") as ledger:
            ledger.write(json.dumps(row) + "\n")
            ledger.flush()
            os.fsync(ledger.fileno())
        how, _, where = (self.folder / "behaviour").read_text().partition(" ")
        if how == "hold":
            time.sleep(3600)
        if how == "drip":
            self._drip()
        self.send_response(204 if how == "take" else int(how))
        if where:
            self.send_header("Location", where)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _drip(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while True:
            self.wfile.write(b"x")
            time.sleep(_DRIP_S)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        pass

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # a sender that was killed in the middle
            super().handle()


def _serve(folder: Path, port: int) -> None:
    _Handler.folder = folder
    server = ThreadingHTTPServer(("127.0.0.1", port), _Handler)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem")
    # Not at accept: a client that says nothing would hold up all others.
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    server.serve_forever()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), int(sys.argv[2]))
