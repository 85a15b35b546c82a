"""Servers that transfers talk to in tests: HTTPS with a certificate, and S3 with signatures."""

from __future__ import annotations

import contextlib
import datetime as dt
import http.client
import ipaddress
import json
import os
import re
import ssl
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlencode

import boto3  # pyright: ignore[reportMissingTypeStubs]
import obstore
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from obstore.store import S3Store

if TYPE_CHECKING:
    from pathlib import Path

HOST = "data.example"
_START_S = 60.0
_POLICY = {"Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}


class WebServer:
    """An HTTPS server named ``data.example`` at a loopback address.

    Args:
        folder: Where its certificate goes.
    """

    def __init__(self, folder: Path) -> None:
        self.pages: dict[str, bytes] = {}
        self.moved: dict[str, str] = {}
        self.cut: set[str] = set()
        """Pages whose connection breaks in the middle."""

        self.busy: dict[str, int] = {}
        """How often a page still answers 503."""

        self.slow_s = 0.0
        """Pause after each 64 KiB."""

        self.seen: list[str] = []
        self.headers: set[str] = set()
        self.ca_file = folder / "cert.pem"
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate(self.ca_file))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def uri(self, path: str) -> str:
        """Return the URI of a page."""
        return f"https://{HOST}:{self.port}{path}"

    def close(self) -> None:
        """End the server."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(_Handler):
            web = server

        return Handler

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and content of a page."""
        self.seen.append(path)
        if self.busy.get(path, 0) > 0:
            self.busy[path] -= 1
            return (503, {"Content-Length": "0"}, b"")
        if path in self.moved:
            return (302, {"Location": self.moved[path], "Content-Length": "0"}, b"")
        if path not in self.pages:
            return (404, {"Content-Length": "0"}, b"")
        data = self.pages[path]
        sent = data[: len(data) // 2] if path in self.cut else data
        return (200, {"Content-Length": str(len(data))}, sent)


class _Handler(BaseHTTPRequestHandler):
    web: WebServer

    def do_GET(self) -> None:
        self.web.headers.update(self.headers)
        status, headers, data = self.web.answer(self.path)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        for start in range(0, len(data), 65536):
            self.wfile.write(data[start : start + 65536])
            time.sleep(self.web.slow_s)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        pass

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # a client that was killed in the middle
            super().handle()


class S3Server:
    """A server that speaks S3 and checks signatures, in a process of its own.

    Args:
        folder: Where its log goes.
    """

    def __init__(self, folder: Path) -> None:
        log = folder / "s3.log"
        self._log = log.open("wb")
        self._process = subprocess.Popen(
            # Port 0: the server takes a free one itself, so nobody can take it before.
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
            # What sets up the credentials and the bucket; every later call needs a signature.
            env={**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": "4"},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        self._address = self._listening(log)
        self.env = self._credentials()

    def put(self, key: str, data: bytes) -> None:
        """Put an object into ``bucket``."""
        obstore.put(self._bucket(), key, data)

    def objects(self) -> dict[str, bytes]:
        """Return all objects of ``bucket``."""
        store = self._bucket()
        return {key: bytes(obstore.get(store, key).bytes()) for key in self.sizes()}

    def sizes(self) -> dict[str, int]:
        """Return the size of each object of ``bucket``, as one listing shows them."""
        pages = obstore.list(self._bucket())  # pyright: ignore[reportUnknownMemberType]
        return {row["path"]: row["size"] for page in pages for row in page}

    def unfinished(self) -> list[str]:
        """Return the names of the uploads to ``bucket`` that neither ended nor were ended."""
        found = self._client().list_multipart_uploads(Bucket="bucket")
        return sorted(row["Key"] for row in found.get("Uploads", []))

    def begin_upload(self, key: str) -> None:
        """Begin an upload to ``bucket`` that nobody ends."""
        self._client().create_multipart_upload(Bucket="bucket", Key=key)

    def _client(self) -> Any:
        client: Any = cast("Any", boto3).client(
            "s3",
            endpoint_url=self.env["AWS_ENDPOINT_URL"],
            aws_access_key_id=self.env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.env["AWS_SECRET_ACCESS_KEY"],
            region_name="us-east-1",
        )
        return client

    def _bucket(self) -> S3Store:
        return S3Store(
            "bucket",
            access_key_id=self.env["AWS_ACCESS_KEY_ID"],
            secret_access_key=self.env["AWS_SECRET_ACCESS_KEY"],
            endpoint=self.env["AWS_ENDPOINT_URL"],
            region="us-east-1",
            client_options={"allow_http": True},
        )

    def close(self) -> None:
        """End the server."""
        self._process.terminate()
        self._process.wait(10)
        self._log.close()

    def _listening(self, log: Path) -> str:
        """Return the address that the server says it has bound."""
        deadline = time.monotonic() + _START_S
        while not (said := re.search(r"Running on http://([0-9.:]+)\n", log.read_text())):
            assert self._process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        return said[1]

    def _credentials(self) -> dict[str, str]:
        self._iam(Action="CreateUser", UserName="worker")
        policy = json.dumps({"Version": "2012-10-17", **_POLICY})
        self._iam(
            Action="PutUserPolicy", UserName="worker", PolicyName="all", PolicyDocument=policy
        )
        answer = self._iam(Action="CreateAccessKey", UserName="worker")
        self._call("PUT", "/bucket", "s3", "")
        key, secret = (
            re.search(f"<{tag}>([^<]+)<", answer) for tag in ("AccessKeyId", "SecretAccessKey")
        )
        assert key
        assert secret
        return {
            "AWS_ACCESS_KEY_ID": key[1],
            "AWS_SECRET_ACCESS_KEY": secret[1],
            "AWS_ENDPOINT_URL": f"http://{self._address}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
        }

    def _iam(self, **fields: str) -> str:
        body = urlencode({**fields, "Version": "2010-05-08"})
        return self._call("POST", "/", "iam", body)

    def _call(self, method: str, path: str, service: str, body: str) -> str:
        connection = http.client.HTTPConnection(self._address, timeout=20)
        scope = f"Credential=none/20260101/us-east-1/{service}/aws4_request"
        headers = {
            # Not a valid one: it only tells which of its services the server shall be.
            "Authorization": f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=none",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        assert response.status == 200, text
        return text


def certificate(path: Path) -> Path:
    """Write a certificate for `HOST` and its key into one file; return its path."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = dt.datetime.now(dt.UTC)
    names = [x509.DNSName(HOST), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
    return path
