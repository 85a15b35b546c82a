"""Connections to buckets of S3, and of servers that speak it.

Credentials, region and endpoint are this process's own environment (``AWS_...``), never a
request's.
"""

from __future__ import annotations

import os
import re
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from obstore.store import S3Store

_RETRIES = 3
_PATIENCE = timedelta(seconds=30)
_ANSWER = re.compile(r"<Code>([^<]{1,80})</Code>\s*(?:<Message>([^<]{0,300})</Message>)?")


def connected(bucket: str, prefix: str = "") -> S3Store:
    """Return a bucket, seen from a prefix; nothing is asked yet."""
    from obstore.store import S3Store  # noqa: PLC0415 - only where S3 is used

    return S3Store(
        bucket,
        prefix=prefix or None,
        client_options={
            "timeout": "60s",
            "connect_timeout": "10s",
            # Options given here replace the environment's, this one too.
            "allow_http": os.environ.get("AWS_ALLOW_HTTP", "").lower() == "true",
        },
        retry_config={"max_retries": _RETRIES, "retry_timeout": _PATIENCE},
    )


def answer_code(error: Exception) -> str:
    """Return the server's own word for an error, such as ``NoSuchBucket``; or nothing."""
    found = _ANSWER.search(str(error))
    return found[1] if found else ""


def short(error: Exception) -> str:
    """Return one line of an error: the server's words, or where it has none, the client's."""
    found = _ANSWER.search(str(error))
    if found:
        return f"{found[1]}: {found[2] or ''}".rstrip(": ")
    return " ".join(str(error).partition("\nDebug source")[0].split())[:300]
