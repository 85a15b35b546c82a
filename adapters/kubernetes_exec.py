"""Running a command in a container of a pod, with what goes in and what comes out as bytes.

A WebSocket carries numbered channels: 0 goes in, 1 and 2 come out, 3 says how the command ended.
"""

from __future__ import annotations

import importlib
import json
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlencode

from temporal_fabric.adapters.kubernetes_objects import part, parts
from temporal_fabric.errors import BackendUnknown
from temporal_fabric.shapes import is_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from temporal_fabric.adapters.kubernetes_api import KubernetesApi

_PROTOCOL = "v4.channel.k8s.io"
_IN, _OUT, _ERR, _END = range(4)
_CHUNK = 256 * 1024
_SAID = 2048


class CommandFailed(Exception):
    """The command ended with another code than 0; the message has what it said.

    Attributes:
        code: Its exit code, where it was started at all.
    """

    def __init__(self, message: str, code: int | None) -> None:
        self.code = code
        super().__init__(message)


class Command:
    """One command on its way: use it as a context.

    Args:
        api: The cluster.
        pod: Name of the pod.
        container: Name of the container, which has to run.
        argv: The command.
        limit_s: How long the other side may be silent.

    Raises:
        BackendUnknown: the container cannot be reached.
    """

    def __init__(
        self, api: KubernetesApi, pod: str, container: str, argv: Sequence[str], limit_s: float
    ) -> None:
        self._api, self._doing = api, f"exec in {pod}/{container}"
        self._said = bytearray()
        query = [("container", container), ("stdin", "1"), ("stdout", "1"), ("stderr", "1")]
        query += [("command", word) for word in argv]
        path = f"/api/v1/namespaces/{api.namespace}/pods/{pod}/exec"
        url = f"{api.server.replace('http', 'ws', 1)}{path}?{urlencode(query)}"
        with api.translated(self._doing):
            self._socket = _connect(api, url, limit_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(Exception):
            self._socket.close(timeout=1)

    def send(self, chunks: Iterable[bytes]) -> None:
        """Give the command its standard input; its end is not told.

        Raises:
            BackendUnknown: the connection was lost.
        """
        with self._api.translated(self._doing):
            for chunk in chunks:
                for start in range(0, len(chunk), _CHUNK):
                    self._socket.send_binary(bytes([_IN]) + chunk[start : start + _CHUNK])

    def output(self) -> Iterator[bytes]:
        """Yield standard output to its end; the end is only reached where all is well.

        Raises:
            CommandFailed: the command ended with another code than 0.
            BackendUnknown: the connection was lost before the command's end was told.
        """
        while True:
            with self._api.translated(self._doing):
                frame: bytes | str = self._socket.recv()
            data = frame.encode() if isinstance(frame, str) else frame
            if not data:
                raise BackendUnknown(f"the connection was lost [doing={self._doing}]")
            channel, content = data[0], data[1:]
            if channel == _OUT and content:
                yield content
            elif channel == _ERR:
                self._said = (self._said + content)[-_SAID:]
            elif channel == _END:
                self._judge(content)
                return

    def finish(self) -> None:
        """Wait for the command's end.

        Raises:
            CommandFailed: as in `output`.
            BackendUnknown: as in `output`.
        """
        for _ in self.output():
            pass

    def _judge(self, content: bytes) -> None:
        try:
            said = json.loads(content)
        except ValueError as exc:
            raise BackendUnknown(f"its end means nothing [doing={self._doing}]") from exc
        if not is_table(said) or said.get("status") != "Success":
            words = bytes(self._said).decode(errors="replace").strip()
            reason = said.get("message") if is_table(said) else said
            raise CommandFailed(f"{words or reason} [doing={self._doing}]", _code(said))


def _code(said: Any) -> int | None:
    """Return the exit code that the end of a command tells."""
    for cause in parts(part(said, "details"), "causes") if is_table(said) else ():
        if cause.get("reason") == "ExitCode" and str(cause.get("message")).isdecimal():
            return int(cause["message"])
    return None


def _connect(api: KubernetesApi, url: str, limit_s: float) -> Any:
    sockets: Any = importlib.import_module("websocket")
    proxies: Any = importlib.import_module("kubernetes.stream.ws_client")
    found = api.configuration
    trust: dict[str, Any] = {"cert_reqs": ssl.CERT_NONE}
    if found.verify_ssl:
        trust = {"cert_reqs": ssl.CERT_REQUIRED, "ca_certs": found.ssl_ca_cert}
    for option, value in (
        ("certfile", found.cert_file),
        ("keyfile", found.key_file),
        ("server_hostname", found.tls_server_name),
        ("check_hostname", found.assert_hostname),
    ):
        if value is not None:
            trust[option] = value
    socket = sockets.WebSocket(sslopt=trust, skip_utf8_validation=True)
    headers = [f"{name}: {value}" for name, value in api.authorization().items()]
    options: dict[str, Any] = {"header": headers, "subprotocols": [_PROTOCOL], "timeout": limit_s}
    if found.proxy or found.proxy_headers:
        options = proxies.websocket_proxycare(options, found, url, None)
    socket.connect(url, **options)
    return socket
