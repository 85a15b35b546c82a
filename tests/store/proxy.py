"""A proxy between the fabric and a real S3 server, which does what networks do."""

from __future__ import annotations

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

Answer = tuple[int, dict[str, str], bytes] | None


class Proxy:
    """Forwards every request as it is, so that signatures hold, then perhaps spoils the answer.

    Args:
        endpoint: The server's address, as in ``AWS_ENDPOINT_URL``.
    """

    def __init__(self, endpoint: str) -> None:
        self.target = urlsplit(endpoint).netloc
        self.lose = 0
        """How many answers to writes are dropped after the server has acted."""

        self.garble = False
        """Whether reads are answered with nonsense."""

        self.forgets = False
        """Whether it claims success where the server refused a conditional write."""

        self.parts = -1
        """How many parts of an upload pass before the line is cut; none is cut below zero."""

        self.writes = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        """End the proxy."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(_Handler):
            owner = proxy

        return Handler

    def forward(
        self, method: str, path: str, headers: list[tuple[str, str]], body: bytes
    ) -> Answer:
        """Ask the server, and return what the client is to see: nothing where the line is cut."""
        if method == "PUT":
            self.writes += 1
        if "partNumber=" in path and self.parts >= 0:
            self.parts -= 1
            if self.parts < 0:
                self.parts = 0
                return None
        answer = _ask(self.target, method, path, headers, body)
        if method == "PUT" and self.lose > 0:
            self.lose -= 1
            return None
        if method == "PUT" and self.forgets and answer[0] == http.client.PRECONDITION_FAILED:
            return (200, {"ETag": '"x"'}, b"")
        if method == "GET" and self.garble:
            return (200, {"Content-Type": "text/html"}, b"<html>Please log in</html>")
        return answer


def _ask(
    target: str, method: str, path: str, headers: list[tuple[str, str]], body: bytes
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(target, timeout=30)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in headers:
        connection.putheader(name, value)
    connection.endheaders(body)
    response = connection.getresponse()
    answer = (response.status, dict(response.getheaders()), response.read())
    connection.close()
    return answer


class _Handler(BaseHTTPRequestHandler):
    owner: Proxy
    protocol_version = "HTTP/1.1"

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = self.owner.forward(self.command, self.path, self.headers.items(), body)
        self.close_connection = True
        if answer is None:
            return
        status, headers, data = answer
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in {"transfer-encoding", "connection", "content-length"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _any  # noqa: N815 - the base's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        pass
