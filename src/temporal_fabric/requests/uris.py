"""What a URI in a request may look like, before anybody connects to anything.

The code that transfers data checks the resolved address again: a name proves nothing. Here
only what is wrong by its spelling is refused, so that the author hears of it at once.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple
from urllib.parse import unquote

__all__ = ["READABLE", "WRITABLE", "UriFault", "mask_credentials", "uri_fault"]

READABLE = ("file", "s3", "https", "capsule")
WRITABLE = ("file", "s3")

_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,31})://([^/?#]*)([^?#]*)(?:\?([^#]*))?(?:#.*)?")
_UNSAFE = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029\\]")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_NUMERIC_LABEL = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)")
_CREDENTIAL_KEY = re.compile(
    r"(?:x-amz-(?:signature|credential|security-token)|x-goog-(?:signature|credential)|sig|signature"
    r"|token|access_token|auth_token|api_?key|apikey|password|passwd|secret|client_secret)",
    re.IGNORECASE,
)
_HOST_CHARS = 253
_LAST_PORT = 65535
_INTERNAL = (".localhost", ".local", ".internal", ".localdomain")


class UriFault(NamedTuple):
    """What is wrong with a URI; never holds a part that could be a credential."""

    code: str
    what: str
    allowed: tuple[str, ...] | None = None


def mask_credentials(text: str) -> str:
    """Return text with the user part of any URI in it, and its query, replaced by stars."""
    text = re.sub(r"(://)[^/?#\s]*@", r"\1***@", text)
    return re.sub(r"(://[^?\s]*\?)\S+", r"\1***", text)


def uri_fault(text: str, schemes: tuple[str, ...]) -> UriFault | None:
    """Return the first thing wrong with a URI, or None."""
    if _UNSAFE.search(text):
        return UriFault(
            "E_PATH", "has a blank, a backslash or a control character; write it as %xx"
        )
    match = _URI.fullmatch(text)
    if match is None:
        return UriFault("E_URI_SCHEME", "is not a URI such as file:///data/set.csv", schemes)
    scheme, authority, path, query = match[1], match[2], match[3], match[4] or ""
    if scheme not in schemes:
        return UriFault(
            "E_URI_SCHEME", f"has a scheme that is not accepted here: {scheme}", schemes
        )
    if "@" in authority or _has_credential(query):
        return UriFault("E_URI_CRED", "carries a credential, which would be kept in the history")
    return _path_fault(path) or _CHECKS[scheme](authority, path)


def _has_credential(query: str) -> bool:
    keys = (part.partition("=")[0] for part in re.split("[&;]", query))
    return any(_CREDENTIAL_KEY.fullmatch(unquote(key)) for key in keys)


def _path_fault(path: str) -> UriFault | None:
    # Decoded once, as the reader of the URI will do; what still looks encoded is refused, so
    # that no second decoder finds another path than this check saw.
    decoded = unquote(path)
    if _UNSAFE.search(decoded.replace(" ", "_")) or re.search("%[0-9A-Fa-f]{2}", decoded):
        return UriFault("E_PATH", "hides a control character or a doubly encoded one in its path")
    if ".." in decoded.split("/"):
        return UriFault("E_PATH", "climbs with '..'; write the path out")
    return None


def _file_fault(authority: str, path: str) -> UriFault | None:
    if authority not in ("", "localhost"):
        return UriFault("E_URI_HOST", "names a host, or misses a slash; write file:///path")
    if path in ("", "/"):
        return UriFault("E_PATH", "names no file; write file:///path")
    return None


def _s3_fault(authority: str, path: str) -> UriFault | None:
    if not _BUCKET.fullmatch(authority):
        return UriFault("E_URI_HOST", "has a malformed bucket name; write s3://bucket/key")
    if path in ("", "/"):
        return UriFault("E_PATH", "names no object; write s3://bucket/key")
    return None


def _capsule_fault(authority: str, path: str) -> UriFault | None:
    request_id, _, output = path.removeprefix("/").partition("/")
    if not output:
        return UriFault("E_PATH", "is incomplete; write capsule://tenant/id/output")
    if not (_NAME.fullmatch(authority) and _NAME.fullmatch(request_id)):
        return UriFault("E_NAME", "has a malformed tenant or id; write capsule://tenant/id/output")
    return None


def _https_fault(authority: str, _path: str) -> UriFault | None:
    host, fault = _split_port(authority.lower())
    if fault is not None:
        return fault
    if host.startswith("["):
        return _address_fault(host[1:-1])
    host = host.removesuffix(".")
    labels = host.split(".")
    if _NUMERIC_LABEL.fullmatch(labels[-1]):
        # 127.1, 0x7f.1 and 2130706433 are addresses too, for some resolvers.
        return _address_fault(host)
    if len(host) > _HOST_CHARS or not all(_LABEL.fullmatch(label) for label in labels):
        return UriFault("E_URI_HOST", "has a malformed host name")
    if host == "localhost" or host.endswith(_INTERNAL):
        return UriFault("E_URI_HOST", "names a host inside the network")
    return None


def _split_port(authority: str) -> tuple[str, UriFault | None]:
    match = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::([0-9]{1,5}))?", authority)
    if match is None or not match[1] or int(match[2] or 0) > _LAST_PORT:
        return "", UriFault("E_URI_HOST", "has a malformed host or port")
    return match[1], None


def _address_fault(text: str) -> UriFault | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return UriFault("E_URI_HOST", "has a malformed address; write a host name")
    mapped = getattr(address, "ipv4_mapped", None) or address
    if not mapped.is_global or mapped.is_multicast:
        return UriFault("E_URI_HOST", "names an address inside the network")
    return None


_CHECKS = {"file": _file_fault, "s3": _s3_fault, "https": _https_fault, "capsule": _capsule_fault}
