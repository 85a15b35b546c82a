"""What an https:// input may reach: the public network, and what the settings allow."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from temporal_fabric.artifacts.addresses import allowed, judged_addresses
from temporal_fabric.artifacts.https import read_https
from temporal_fabric.artifacts.transfer import Transfer
from temporal_fabric.config import ArtifactsConfig, Settings
from temporal_fabric.errors import ArtifactFailed, RequestRejected, TransientBackendError
from tests.artifacts.servers import HOST

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.artifacts.servers import WebServer

NOTHING_ALLOWED = ArtifactsConfig()


class Sentinel:
    """A service inside the network that nobody may talk to."""

    def __init__(self) -> None:
        self.connections = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            connection.close()

    def close(self) -> None:
        """Listen no longer."""
        self._socket.close()


@pytest.fixture
def sentinel() -> Iterator[Sentinel]:
    found = Sentinel()
    yield found
    found.close()


def _config(web: WebServer, **more: Any) -> ArtifactsConfig:
    return ArtifactsConfig(hosts={HOST: "127.0.0.1"}, ca_file=str(web.ca_file), **more)


def _read(uri: str, config: ArtifactsConfig) -> bytes:
    transfer = Transfer(config.max_bytes, config.max_seconds, lambda _said: None)
    return b"".join(transfer.counted(read_https(uri, config, transfer)))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",  # noqa: S104 - judged, not bound
        "224.0.0.1",
        "::1",
        "::",
        "fe80::1%eth0",
        "fd00::1",
        "::ffff:127.0.0.1",
        "::ffff:7f00:1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "ff02::1",
    ],
)
def test_addresses_inside_the_network_are_refused(address: str) -> None:
    """Loopback, private, link-local, mapped and embedded addresses are not public."""
    assert not allowed(address, NOTHING_ALLOWED)


def test_a_network_can_be_allowed() -> None:
    """The settings allow a network, and no other."""
    config = ArtifactsConfig(networks=("10.1.0.0/16",))

    assert allowed("10.1.2.3", config)
    assert not allowed("10.2.2.3", config)
    assert allowed("9.9.9.9", NOTHING_ALLOWED)


def test_a_name_of_a_loopback_address_is_refused(sentinel: Sentinel) -> None:
    """What a name resolves to counts, not how it looks; no connection is made."""
    with pytest.raises(ArtifactFailed, match="E_URI_HOST"):
        _read(f"https://localhost:{sentinel.port}/x", NOTHING_ALLOWED)

    assert sentinel.connections == 0


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "2130706433", "0x7f000001", "127.1", "[::ffff:127.0.0.1]", "[::1]", "localhost"],
)
def test_a_redirect_into_the_network_is_refused(
    web: WebServer, sentinel: Sentinel, host: str
) -> None:
    """A redirect is judged as the first address was, however the address is written."""
    web.moved["/x"] = f"https://{host}:{sentinel.port}/secret"

    with pytest.raises(ArtifactFailed, match="E_URI_HOST"):
        _read(web.uri("/x"), _config(web))

    assert sentinel.connections == 0


@pytest.mark.parametrize("target", ["http://data.example/x", "file:///etc/passwd"])
def test_a_redirect_to_another_scheme_is_refused(web: WebServer, target: str) -> None:
    """Only https follows https."""
    web.moved["/x"] = target

    with pytest.raises(ArtifactFailed, match="E_URI_SCHEME"):
        _read(web.uri("/x"), _config(web))


def test_redirects_are_followed_a_few_times(web: WebServer) -> None:
    """A redirect, also a signed one, is followed; a circle of them ends."""
    web.pages["/data?X-Amz-Signature=abc"] = b"content"
    web.moved |= {"/x": "/y", "/y": "/data?X-Amz-Signature=abc", "/round": "/round"}

    assert _read(web.uri("/x"), _config(web)) == b"content"
    with pytest.raises(ArtifactFailed, match="redirects"):
        _read(web.uri("/round"), _config(web))


def test_the_connection_goes_to_the_judged_address() -> None:
    """A pinned name is never asked of a name service."""
    assert judged_addresses(HOST, 443, ArtifactsConfig(hosts={HOST: "10.0.0.9"})) == ["10.0.0.9"]


def test_an_untrusted_certificate_is_refused(web: WebServer) -> None:
    """Without the certificate in the settings nothing is read."""
    web.pages["/x"] = b"content"

    with pytest.raises(ArtifactFailed, match="not trusted"):
        _read(web.uri("/x"), ArtifactsConfig(hosts={HOST: "127.0.0.1"}))

    assert web.seen == []


def test_no_credential_of_the_worker_is_sent(
    web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a proxy nor a .netrc of the worker's user is used."""
    (tmp_path / ".netrc").write_text(f"machine {HOST} login me password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    web.pages["/x"] = b"content"

    assert _read(web.uri("/x"), _config(web)) == b"content"
    assert "authorization" not in {name.lower() for name in web.headers}


def test_size_is_limited(web: WebServer) -> None:
    """A page larger than the limit is refused before it is read."""
    web.pages["/x"] = b"x" * 1000

    with pytest.raises(ArtifactFailed, match="max_bytes"):
        _read(web.uri("/x"), _config(web, max_bytes=999))


def test_time_is_limited(web: WebServer) -> None:
    """A server that drips does not hold the worker for ever."""
    web.pages["/x"] = b"x" * (8 << 20)
    web.slow_s = 0.1

    with pytest.raises(ArtifactFailed, match="max_seconds"):
        _read(web.uri("/x"), _config(web, max_seconds=1))


def test_a_broken_connection_is_no_content(web: WebServer) -> None:
    """Half a page is trouble that may pass, not an input."""
    web.pages["/x"] = b"x" * 200_000
    web.cut.add("/x")

    with pytest.raises(TransientBackendError, match="broke off"):
        _read(web.uri("/x"), _config(web))


def test_settings_are_checked(tmp_path: Path) -> None:
    """Every wrong setting is listed."""
    (tmp_path / "fabric.toml").write_text(
        "[artifacts]\nnetworks = ['all']\nmax_bytes = 0\nproxy = ''\n[artifacts.hosts]\na = 'b'\n"
    )

    with pytest.raises(RequestRejected) as caught:
        Settings.load(home=tmp_path, env={}, cwd=tmp_path)

    assert [problem.path for problem in caught.value.problems] == [
        "/artifacts/proxy",
        "/artifacts/networks",
        "/artifacts/hosts",
        "/artifacts/max_bytes",
    ]
