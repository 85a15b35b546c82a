"""The HTTP endpoint of a worker's metrics.

Every path but ``/healthz`` needs the bearer token, also one that does not exist, so that an
answer without the token says nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import socket
import threading
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from prometheus_client.exposition import choose_encoder

from temporal_fabric.errors import MetricsRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from prometheus_client import CollectorRegistry

_AT_ONCE = 16
"""Connections at a time; a further one is closed at once."""

_PATIENCE_S = 5.0


class MetricsServer(ThreadingHTTPServer):
    """Answers scrapes; each connection has a thread and a time limit.

    Args:
        address: Host and port.
        registry: What is shown.
        token: What a scraper must present.
    """

    daemon_threads = True

    def __init__(self, address: tuple[str, int], registry: CollectorRegistry, token: str) -> None:
        self.registry = registry
        self._token = _hash(token)
        self._free = threading.BoundedSemaphore(_AT_ONCE)
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Answer)

    def admits(self, given: list[str]) -> bool:
        """Return whether exactly one ``Authorization`` header carries the token."""
        scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        return scheme.lower() == "bearer" and hmac.compare_digest(_hash(token), self._token)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Take a connection where a thread is free for it."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer one connection in its thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Drop a connection that broke: its trouble is the scraper's."""


class _Answer(BaseHTTPRequestHandler):
    server: MetricsServer  # pyright: ignore[reportIncompatibleVariableOverride]
    timeout = _PATIENCE_S
    server_version = "temporal-fabric"
    sys_version = ""

    def answer(self) -> None:
        """Send health to anyone, everything else to who has the token."""
        path = self.path.partition("?")[0]
        if path == "/healthz":
            self._send(HTTPStatus.OK, b"ok\n")
        elif not self.server.admits(self.headers.get_all("Authorization") or []):
            self._send(HTTPStatus.UNAUTHORIZED, b"a bearer token is needed\n")
        elif path in ROUTES:
            ROUTES[path](self)
        else:
            self._send(HTTPStatus.NOT_FOUND, b"not found\n")

    # The same for every method, or one of them would be a way round.
    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer  # noqa: N815

    def metrics(self) -> None:
        """Send the registry in the format that was asked for."""
        encode, content_type = choose_encoder(self.headers.get("Accept", ""))
        self._send(HTTPStatus.OK, encode(self.server.registry), content_type)

    def _send(self, status: HTTPStatus, body: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        if status is HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", "Bearer")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its base's name
        """Say nothing: a path is written by whoever connects."""


ROUTES: dict[str, Callable[[Any], None]] = {"/metrics": _Answer.metrics}
"""What the token opens."""


@contextmanager
def serving(host: str, port: int, registry: CollectorRegistry, token: str) -> Generator[str]:
    """Serve metrics while the block runs; yield their URL.

    Raises:
        MetricsRefused: the address cannot be taken.
    """
    try:
        server = MetricsServer((host, port), registry, token)
    except (OSError, OverflowError) as exc:
        raise MetricsRefused(
            f"metrics cannot be served [address={host}:{port}]: {exc}; choose another port"
        ) from exc
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2})
    thread.daemon = True
    thread.start()
    try:
        shown = f"[{host}]" if ":" in host else host
        yield f"http://{shown}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()


def _hash(token: str) -> bytes:
    # Digests have one length, so that the comparison's time tells nothing of the token's.
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()
