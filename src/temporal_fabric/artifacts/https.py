"""Reading ``https://`` inputs, without any credential of the worker.

No proxy, no .netrc, no cookies: the worker asks as anybody would. Every redirect is judged
as the first address was.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from temporal_fabric.artifacts.addresses import judged_addresses
from temporal_fabric.beneath import CHUNK
from temporal_fabric.errors import ArtifactFailed, TransientBackendError
from temporal_fabric.requests.uris import mask_credentials, uri_fault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from temporal_fabric.artifacts.transfer import Transfer
    from temporal_fabric.config import ArtifactsConfig

_REDIRECTS = 5
_SILENCE_S = 30.0
"""How long a server may say nothing."""

_MOVED = frozenset({301, 302, 303, 307, 308})
_GONE = frozenset({404, 410})
_LATER = frozenset({408, 425, 429})
_SERVER_TROUBLE = 500


class _Pinned(http.client.HTTPSConnection):
    """A connection to an address that was judged, under the name that was asked for."""

    def __init__(self, host: str, port: int, addresses: list[str], context: ssl.SSLContext) -> None:
        super().__init__(host, port, timeout=_SILENCE_S, context=context)
        self._addresses = addresses
        self._tls = context

    def connect(self) -> None:
        plain = self._first_that_answers()
        try:
            self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise

    def _first_that_answers(self) -> socket.socket:
        last: OSError | None = None
        for address in self._addresses:
            try:
                return socket.create_connection((address, self.port), _SILENCE_S)
            except OSError as exc:
                last = exc
        raise last or OSError("no address")


def read_https(uri: str, config: ArtifactsConfig, transfer: Transfer) -> Iterator[bytes]:
    """Yield the content behind a URI.

    Raises:
        ArtifactFailed: not there, refused, or a redirect leads where it may not.
        TransientBackendError: the server does not answer, or broke off.
    """
    url = uri
    for _ in range(_REDIRECTS + 1):
        connection = _connection(url, config)
        try:
            response = _ask(connection, url)
            if response.status in _MOVED:
                url = _judged(urljoin(url, response.getheader("Location") or ""), uri)
                continue
            _check(response.status, uri)
            yield from _content(response, uri, transfer)
        except (OSError, http.client.HTTPException) as exc:
            raise _translated(exc, uri) from exc
        else:
            return
        finally:
            connection.close()
    raise ArtifactFailed(f"more than {_REDIRECTS} redirects: {uri}")


def _connection(url: str, config: ArtifactsConfig) -> _Pinned:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 443
    context = ssl.create_default_context(cafile=config.ca_file or None)
    return _Pinned(host, port, judged_addresses(host, port, config), context)


def _ask(connection: _Pinned, url: str) -> http.client.HTTPResponse:
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {"Accept-Encoding": "identity", "User-Agent": "temporal-fabric"}
    connection.request("GET", path, headers=headers)
    return connection.getresponse()


def _judged(url: str, uri: str) -> str:
    # A redirect may carry a signature in its query: it is the server's, and is kept nowhere.
    fault = uri_fault(url.partition("?")[0], ("https",))
    if fault is not None:
        where = mask_credentials(url)
        raise ArtifactFailed(f"{fault.code}: {uri} redirects to {where}, which {fault.what}")
    return url


def _check(status: int, uri: str) -> None:
    if status in _GONE:
        raise ArtifactFailed(f"input not found: {uri}: the server answered {status}")
    if status in _LATER or status >= _SERVER_TROUBLE:
        raise TransientBackendError(f"{uri}: the server answered {status}")
    if status != http.client.OK:
        raise ArtifactFailed(f"input cannot be read: {uri}: the server answered {status}")


def _content(response: http.client.HTTPResponse, uri: str, transfer: Transfer) -> Iterator[bytes]:
    announced = response.length
    if announced is not None:
        transfer.expect(announced)
    received = 0
    while chunk := response.read(CHUNK):
        received += len(chunk)
        yield chunk
    if announced is not None and received != announced:
        raise TransientBackendError(f"{uri}: broke off after {received} of {announced} bytes")


def _translated(error: Exception, uri: str) -> Exception:
    if isinstance(error, ssl.SSLCertVerificationError):
        return ArtifactFailed(f"{uri}: the server's certificate is not trusted: {error.reason}")
    return TransientBackendError(f"{uri}: {error or type(error).__name__}")
