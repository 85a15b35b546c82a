"""One notice as one HTTPS POST, to an address that was judged as those of inputs are.

Of the answer only the head is read, its status counts, and all of it has one limit of time:
a receiver is not trusted. No redirect is followed, no proxy and no credential is used.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from temporal_fabric.artifacts.addresses import judged_addresses
from temporal_fabric.errors import PermanentBackendError, TransientBackendError
from temporal_fabric.requests.uris import mask_credentials, uri_fault

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from temporal_fabric.messages import Notice
    from temporal_fabric.reach import Reach

SCHEMA_VERSION = 1
LIMIT_S = 20.0
"""For everything: name, connection, sending and the head of the answer."""

_HEAD_BYTES = 16 * 1024
_MESSAGE_CHARS = 1000
_FAREWELL_S = 2.0
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]")
_PATH_CHARS = "/%:@!$&'()*+,;=~-._"
_GONE = 410


def event_id(notice: Notice) -> str:
    """Return what names an event however often it is sent: experiment, run and number."""
    return f"{notice.tenant}/{notice.request_id}/{notice.run_id}/{notice.number}"


def content(notice: Notice) -> dict[str, Any]:
    """Return what a receiver gets. Fields are only ever added; without a value one is null."""
    return {
        "schema_version": SCHEMA_VERSION,
        "event_id": event_id(notice),
        "event": notice.number,
        "tenant": notice.tenant,
        "id": notice.request_id,
        "run_id": notice.run_id,
        "state": notice.state,
        "reason": notice.reason or None,
        "message": notice.message[:_MESSAGE_CHARS] or None,
        "backend": notice.backend or None,
        "epoch": notice.epoch or None,
        "at": notice.at,
        "capsule": notice.capsule or None,
    }


async def post(notice: Notice, reach: Reach, threads: Executor) -> int:
    """Send one notice, once.

    Args:
        notice: What is told, and to whom.
        reach: Which receivers are allowed besides public ones.
        threads: Where names are resolved, which blocks.

    Returns:
        The status of the answer, 200 to 299.

    Raises:
        PermanentBackendError: the address is not allowed, the receiver redirects, or says 410.
        TransientBackendError: it does not answer in time, or with another status.
    """
    # Whoever may start workflows can start this one with any URL: admission is not enough.
    fault = uri_fault(notice.url, ("https",))
    where = mask_credentials(notice.url)
    if fault is not None:
        raise PermanentBackendError(f"{fault.code}: {where} {fault.what}")
    try:
        async with asyncio.timeout(LIMIT_S):
            status = await _status(notice, reach, threads)
    except TimeoutError as exc:
        raise TransientBackendError(f"{where} did not answer within {LIMIT_S:g} s") from exc
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as exc:
        raise TransientBackendError(f"{where}: {exc or type(exc).__name__}") from exc
    if 300 <= status < 400 or status == _GONE:  # noqa: PLR2004 - HTTP's classes
        raise PermanentBackendError(f"{where} answered {status}: it is not told again")
    if not 200 <= status < 300:  # noqa: PLR2004 - HTTP's classes
        raise TransientBackendError(f"{where} answered {status}")
    return status


async def _status(notice: Notice, reach: Reach, threads: Executor) -> int:
    parts = urlsplit(notice.url)
    host, port = parts.hostname or "", parts.port or 443

    def judged() -> tuple[list[str], ssl.SSLContext]:
        context = ssl.create_default_context(cafile=reach.ca_file or None)
        return (judged_addresses(host, port, reach), context)

    addresses, tls = await asyncio.get_running_loop().run_in_executor(threads, judged)
    reader, writer = await _connected(addresses, host, port, tls)
    try:
        writer.write(_request(notice))
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
    finally:
        writer.close()
    found = _STATUS.match(head)
    if found is None:
        raise OSError("the answer is not HTTP")
    return int(found[1])


async def _connected(
    addresses: list[str], host: str, port: int, tls: ssl.SSLContext
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    last: OSError | None = None
    for address in addresses:
        try:
            return await asyncio.open_connection(
                address,
                port,
                ssl=tls,
                server_hostname=host,
                limit=_HEAD_BYTES,
                ssl_shutdown_timeout=_FAREWELL_S,
            )
        except OSError as exc:
            last = exc
    raise last or OSError("no address")


def _request(notice: Notice) -> bytes:
    parts = urlsplit(notice.url)
    path = quote(parts.path or "/", _PATH_CHARS)
    if parts.query:
        path += f"?{quote(parts.query, f'{_PATH_CHARS}?')}"
    body = json.dumps(content(notice)).encode()
    lines = (
        f"POST {path} HTTP/1.1",
        f"Host: {parts.netloc}",
        "User-Agent: temporal-fabric",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f"Idempotency-Key: {quote(event_id(notice))}",
        "Connection: close",
    )
    return "".join(f"{line}\r\n" for line in lines).encode("ascii") + b"\r\n" + body
