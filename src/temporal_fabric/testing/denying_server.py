"""A server that speaks gRPC and refuses whoever asks, as a Temporal with an authorizer does.

The development server has no authorizer, so it cannot be made to refuse. This one needs no
library: a client's requests are not looked into, and the answer to each is the same few bytes
of HTTP/2 (RFC 9113), its headers written out without compression (RFC 7541, section 6.2.2).
"""

from __future__ import annotations

import socketserver
import struct
import threading
from typing import TYPE_CHECKING, Self, cast

if TYPE_CHECKING:
    from io import BufferedIOBase
    from types import TracebackType

PERMISSION_DENIED = 7
UNAUTHENTICATED = 16

_PREFACE = 24
_HEAD = 9
_DATA, _HEADERS, _SETTINGS, _PING = 0, 1, 4, 6
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_STATUS_200 = b"\x88"
_EMPTY_MESSAGE = b"\0\0\0\0\0"


class DenyingServer:
    """Answers every call with one gRPC status, from a thread of its own.

    Args:
        status: The status of the answers.
        greets: Whether the first call of a connection succeeds, with an empty answer: it asks
            what the server can do, which some authorizers allow to everybody.
    """

    def __init__(self, status: int = PERMISSION_DENIED, *, greets: bool = False) -> None:
        self.status = status
        self.greets = greets
        self._server = _Listener(("127.0.0.1", 0), _Connection)
        self._server.owner = self
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def address(self) -> str:
        """Where it listens, as host:port."""
        host, port = self._server.socket.getsockname()
        return f"{host}:{port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Listener(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False  # a client may keep its connection for as long as it lives
    owner: DenyingServer


class _Connection(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        """Answer one connection until its client goes away."""
        owner = cast("_Listener", self.server).owner
        greets = owner.greets
        try:
            self.rfile.read(_PREFACE)
            self.wfile.write(_frame(_SETTINGS, 0, 0, b""))
            while (frame := _read(self.rfile)) is not None:
                kind, flags, stream, content = frame
                if kind in {_SETTINGS, _PING} and not flags & _ACK:
                    self.wfile.write(_frame(kind, _ACK, 0, content if kind == _PING else b""))
                elif kind in {_DATA, _HEADERS} and flags & _END_STREAM:
                    answer = _greeting(stream) if greets else _refusal(stream, owner.status)
                    self.wfile.write(answer)
                    greets = False
        except ConnectionError:
            return  # the client has gone, which is how every connection ends


def _read(file: BufferedIOBase) -> tuple[int, int, int, bytes] | None:
    """Return the next frame: kind, flags, stream and content; None at the end."""
    head = file.read(_HEAD)
    if len(head) < _HEAD:
        return None
    high, low, kind, flags, stream = struct.unpack(">BHBBI", head)
    return kind, flags, stream & 0x7FFFFFFF, file.read(high << 16 | low)


def _frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    return struct.pack(">BHBBI", 0, len(content), kind, flags, stream) + content


def _header(name: str, value: str) -> bytes:
    return b"".join([b"\0", *(bytes([len(text)]) + text.encode() for text in (name, value))])


def _refusal(stream: int, status: int) -> bytes:
    headers = _STATUS_200 + _header("content-type", "application/grpc")
    headers += _header("grpc-status", str(status)) + _header("grpc-message", "not for you")
    return _frame(_HEADERS, _END_HEADERS | _END_STREAM, stream, headers)


def _greeting(stream: int) -> bytes:
    headers = _STATUS_200 + _header("content-type", "application/grpc")
    return b"".join(
        [
            _frame(_HEADERS, _END_HEADERS, stream, headers),
            _frame(_DATA, 0, stream, _EMPTY_MESSAGE),
            _frame(_HEADERS, _END_HEADERS | _END_STREAM, stream, _header("grpc-status", "0")),
        ]
    )
