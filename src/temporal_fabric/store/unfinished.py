"""Ending uploads that a killed process left in a bucket: parts that nobody sees and all pay for.

The client library can neither list nor end them, so two signed requests are made here. They
are signed as the S3 user guide says under "Authenticating Requests (AWS Signature Version 4)",
with the credentials of ``AWS_ACCESS_KEY_ID``. Where those come from elsewhere, or may not list
uploads, a rule of the bucket has to end them.
"""

from __future__ import annotations

import hashlib
import hmac
import html
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import Request, urlopen

_TIMEOUT_S = 20.0
_NOTHING = hashlib.sha256(b"").hexdigest()
_UPLOAD = re.compile(r"<Upload>(.*?)</Upload>", re.DOTALL)
_KEY = re.compile(r"<Key>([^<]*)</Key>")
_ID = re.compile(r"<UploadId>([^<]*)</UploadId>")


def end_unfinished(bucket: str, key: str) -> None:
    """End every unfinished upload of an object that nobody but the caller may write.

    It helps and is never needed: where the server refuses or does not answer, nothing happens.
    """
    server = _Server.of_environment()
    if server is None:
        return
    with suppress(OSError, HTTPException, ValueError):
        listed = server.ask("GET", bucket, "", {"uploads": "", "prefix": key})
        for upload in _UPLOAD.findall(listed):
            of, upload_id = _KEY.search(upload), _ID.search(upload)
            if of and upload_id and html.unescape(of[1]) == key:
                server.ask("DELETE", bucket, key, {"uploadId": html.unescape(upload_id[1])})


@dataclass(frozen=True, slots=True)
class _Server:
    endpoint: str
    region: str
    key_id: str
    secret: str
    token: str

    @classmethod
    def of_environment(cls) -> _Server | None:
        env = os.environ
        key_id, secret = env.get("AWS_ACCESS_KEY_ID"), env.get("AWS_SECRET_ACCESS_KEY")
        own_names = env.get("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "").lower() == "true"
        if not key_id or not secret or own_names:
            return None
        region = env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION") or "us-east-1"
        endpoint = env.get("AWS_ENDPOINT_URL") or env.get("AWS_ENDPOINT")
        return cls(
            (endpoint or f"https://s3.{region}.amazonaws.com").rstrip("/"),
            region,
            key_id,
            secret,
            env.get("AWS_SESSION_TOKEN", ""),
        )

    def ask(self, method: str, bucket: str, key: str, query: dict[str, str]) -> str:
        """Make one request without a body; return the answer's.

        Raises:
            OSError: the server refuses, or cannot be reached.
            HTTPException: it answers something else.
            ValueError: the endpoint is no URL, or the answer no text.
        """
        base = urlsplit(self.endpoint)
        path = quote(f"{base.path}/{bucket}{'/' if key else ''}{key}", safe="/-_.~")
        asked = urlencode(sorted(query.items()), quote_via=quote, safe="-_.~")
        headers = self._signed(method, base.netloc, path, asked)
        url = f"{base.scheme}://{base.netloc}{path}?{asked}"
        request = Request(url, headers=headers, method=method)  # noqa: S310 - our own endpoint
        with urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
            text: bytes = answer.read()
        return text.decode()

    def _signed(self, method: str, host: str, path: str, query: str) -> dict[str, str]:
        at = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        headers = {"host": host, "x-amz-content-sha256": _NOTHING, "x-amz-date": at}
        if self.token:
            headers["x-amz-security-token"] = self.token
        names = ";".join(headers)  # they stand in alphabetical order
        lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
        canonical = f"{method}\n{path}\n{query}\n{lines}\n{names}\n{_NOTHING}"
        scope = f"{at[:8]}/{self.region}/s3/aws4_request"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        key = f"AWS4{self.secret}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.digest(
            key, f"AWS4-HMAC-SHA256\n{at}\n{scope}\n{digest}".encode(), "sha256"
        )
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.key_id}/{scope}, "
            f"SignedHeaders={names}, Signature={signature.hex()}"
        )
        return headers
