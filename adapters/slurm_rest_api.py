"""Calls to slurmrestd: one HTTP request, one answer, and every error told in one place.

Nothing is sent twice here: an answer to a POST that was lost is looked for by whoever asked. The
token is read from its file for every call, so that a new one counts at once, and no message or
log bears it.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import re
import ssl
import threading
import time
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import urllib3
from urllib3.exceptions import HTTPError, SSLError

from temporal_fabric.adapters.slurm_on_login_queue import Trouble
from temporal_fabric.adapters.slurm_options import API_VERSIONS
from temporal_fabric.adapters.slurm_transport import PeerRefused
from temporal_fabric.shapes import is_list, is_table

if TYPE_CHECKING:
    from collections.abc import Generator

    from temporal_fabric.adapters.slurm_options import RestOptions

_TOKEN = re.compile(r"(?:SLURM_JWT=)?([A-Za-z0-9_.=-]{16,4096})\Z")
_OFFERED = re.compile(r"/slurm/(v[0-9.]+)/")
_LARGEST = 1 << 28
_CHUNK = 1 << 16
_FEW = 300
_REFUSED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
_SAID_NO = (HTTPStatus.BAD_REQUEST, HTTPStatus.INTERNAL_SERVER_ERROR)
"""With an error of Slurm's in it this is slurmrestd's own answer, and no proxy's."""


class RestApi:
    """See the module. Blocking, and safe to be used by many threads."""

    def __init__(self, options: RestOptions) -> None:
        self._options = options
        self._version = options.api
        self._lock = threading.Lock()
        self._trust = ssl.create_default_context(cafile=_path(options.ca) if options.ca else None)

    def slurm(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """Ask Slurm's controller.

        Args:
            method: Of HTTP.
            path: Below ``/slurm/VERSION``.
            body: Of a POST.

        Raises:
            Trouble: refused, or not answered.
            PeerRefused: the server's certificate is not one that is trusted.
        """
        told = self._call(method, f"/slurm/{self.version()}{path}", body)
        # It proves that an empty list is an answer.
        if not is_table(told.get("meta")):
            raise Trouble(f"slurmrestd gives an odd answer [url={self._options.url}, path={path}]")
        return told

    def accounting(self, path: str) -> dict[str, Any]:
        """Ask Slurm's accounting for what lies below ``/slurmdb/VERSION``; raises as `slurm`."""
        return self._call("GET", f"/slurmdb/{self.version()}{path}", None)

    def version(self) -> str:
        """Return the version of the interface: the configured one, or the best one offered."""
        with self._lock:
            if not self._version:
                paths = self._call("GET", "/openapi/v3", None).get("paths", {})
                offered = sorted({m[1] for m in map(_OFFERED.match, paths) if m})
                known = [version for version in API_VERSIONS if version in offered]
                if not known:
                    raise Trouble(
                        "no version of slurmrestd's interface is known to this fabric "
                        f"[url={self._options.url}, offers={' '.join(offered) or 'none'}, "
                        f"known={' '.join(API_VERSIONS)}]: start slurmrestd with a plugin of a "
                        "known one, see its option -s"
                    )
                self._version = known[0]
            return self._version

    def token_until(self) -> str:
        """Return when the token in the file ends, in words."""
        until = _until(self._token())
        return "without an end" if until is None else f"until {_moment(until)}"

    def _token(self) -> str:
        path = _path(self._options.token)
        try:
            found = _TOKEN.match(Path(path).read_text(encoding="utf-8").strip())
        except (OSError, UnicodeDecodeError) as exc:
            raise Trouble(f"the token cannot be read: {exc}; set the option 'token'") from exc
        if found is None:
            raise Trouble(
                f"the file of the token has no token in it [file={path}]: write what `scontrol "
                "token` prints"
            )
        until = _until(found[1])
        if until is not None and until <= time.time():
            raise Trouble(
                f"the token has ended at {_moment(until)} [file={path}]: write a new one, as "
                f"`scontrol token username={self._options.user} lifespan=...` prints it"
            )
        return found[1]

    def _call(self, method: str, path: str, body: object) -> dict[str, Any]:
        headers = {
            "X-SLURM-USER-NAME": self._options.user,
            "X-SLURM-USER-TOKEN": self._token(),
            "Accept": "application/json",
        }
        content = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = json.dumps(body).encode()
        deadline = time.monotonic() + self._options.answer_s
        with (
            self._translated(),
            self._connection() as pool,
            pool.urlopen(
                method, path, body=content, headers=headers, redirect=False, preload_content=False
            ) as answer,
        ):
            status, text = answer.status, _read(answer, deadline)
        return self._understood(status, text)

    def _connection(self) -> urllib3.HTTPConnectionPool:
        """Return a new connection: of what is sent over one that has just ended nobody knows.

        No proxy of the environment sees the token, and no redirect leads it elsewhere.
        """
        options = self._options
        tls = {"ssl_context": self._trust} if options.url.startswith("https:") else {}
        timeout = urllib3.Timeout(connect=options.connect_s, read=options.answer_s)
        return urllib3.connection_from_url(
            options.url, maxsize=1, retries=False, timeout=timeout, **tls
        )

    @contextlib.contextmanager
    def _translated(self) -> Generator[None]:
        """Turn the errors of sockets, TLS and HTTP into the fabric's own."""
        url = self._options.url
        try:
            yield
        except (HTTPError, OSError) as exc:
            why = str(exc).rpartition(": ")[2] or type(exc).__name__
            if isinstance(exc, SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(exc):
                raise PeerRefused(
                    f"the certificate of slurmrestd is not trusted (E_HOSTKEY) [url={url}, "
                    f"why={why}]: set the option 'ca' to the certificate of the site, or of "
                    "whoever signs for it"
                ) from exc
            raise Trouble(
                f"slurmrestd does not answer [url={url}, why={why}]: look whether it is up, and "
                "whether the option 'url' says the way"
            ) from exc

    def _understood(self, status: int, text: bytes) -> dict[str, Any]:
        url = self._options.url
        if status in _REFUSED:
            raise Trouble(
                f"slurmrestd refuses the token [url={url}, user={self._options.user}, "
                f"status={status}]: write one of this user into the file of the option 'token'"
            )
        if status == HTTPStatus.NOT_FOUND:
            raise Trouble(
                f"slurmrestd has no {self._version or 'such'} interface [url={url}]: leave the "
                "option 'api' out, and the best one is found",
                "refused",
            )
        try:
            told: Any = json.loads(text)
        except ValueError:
            told = None
        if not is_table(told):
            raise Trouble(f"slurmrestd gives an odd answer [url={url}, status={status}]")
        if status != HTTPStatus.OK:
            kind = "refused" if status in _SAID_NO and told.get("errors") else "transient"
            raise Trouble(
                f"slurmrestd says {_errors(told)} [url={url}, status={status}]; a token of "
                "another cluster or user is told so too",
                kind,
            )
        return told


def _errors(told: dict[str, Any]) -> str:
    """Return Slurm's own words."""
    errors = told.get("errors")
    texts = [
        str(error.get(name))
        for error in (errors if is_list(errors) else [])
        if is_table(error)
        for name in ("error", "description")
        if error.get(name)
    ]
    return "; ".join(texts)[:_FEW] or "nothing"


def _read(answer: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
    found = bytearray()
    for piece in answer.stream(_CHUNK):
        found += piece
        if len(found) > _LARGEST:
            raise OSError(f"an answer of more than {_LARGEST} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError("the answer takes too long")
    return bytes(found)


def _until(token: str) -> float | None:
    """Return when a JWT ends, as it says itself; only Slurm checks its signature."""
    with contextlib.suppress(IndexError, ValueError, binascii.Error):
        part = token.split(".")[1]
        claims: Any = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        if is_table(claims) and isinstance(claims.get("exp"), int | float):
            return float(claims["exp"])
    return None


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _path(text: str) -> str:
    return str(Path(text).expanduser())
