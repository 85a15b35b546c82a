"""Writing pieces of a hostile body into messages: escaped, cut, and never a credential."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from temporal_fabric.requests.limits import ECHO_CHARS
from temporal_fabric.requests.uris import mask_credentials

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "has_credential",
    "is_sensitive_name",
    "looks_like_credential",
    "pointer",
    "printable",
    "show",
]

# C0, C1, line separators, the byte order mark, and what turns the direction of a terminal's text.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u2028\u2029\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff"
    "\ud800-\udfff\ufff0-\uffff]"
)
_SENSITIVE_NAME = re.compile(
    r"(?:^|[_.-])(?:TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|PWD|CREDENTIALS?|APIKEY)$"
    r"|(?:^|[_.-])(?:API|ACCESS|PRIVATE|SECRET|SIGNING|ENCRYPTION)[_.-]?KEY(?:[_.-]ID)?$"
    r"|AUTHORIZATION$",
    re.IGNORECASE,
)
_ALWAYS_SECRET = re.compile(r"(?:^|[_.-])(?:SECRET|PASSWORD|PASSWD|PASSPHRASE)$", re.IGNORECASE)
# Forms that services give their credentials so that they can be told from other text.
_CREDENTIAL = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:AKIA|ASIA)[0-9A-Z]{16}(?![0-9A-Z])"
    r"|gh[pousr]_[A-Za-z0-9]{30,256}|github_pat_[A-Za-z0-9_]{30,256}"
    r"|glpat-[A-Za-z0-9_-]{20,64}|xox[abprs]-[0-9]{6,}-[A-Za-z0-9-]{10,256}"
    r"|hf_[A-Za-z0-9]{30,64}|sk-(?:proj-|ant-[a-z0-9]+-)?[A-Za-z0-9_]{32,256}"
    r"|AIza[0-9A-Za-z_-]{35}"
    r"|eyJ[A-Za-z0-9_-]{10,256}\.eyJ[A-Za-z0-9_-]{10,256}"
    r")|-----BEGIN [A-Z ]{0,30}PRIVATE KEY"
)
_OPAQUE = re.compile(r"(?=[^0-9]*[0-9])(?=[^A-Za-z]*[A-Za-z])[A-Za-z0-9+/_=.~-]{16,}")


def show(text: str) -> str:
    """Return text for a message: control characters escaped, at most 80 characters."""
    # Twice the length is enough to fill 80 characters, whatever is escaped or masked in it.
    masked = _CREDENTIAL.sub("***", mask_credentials(text[: 4 * ECHO_CHARS]))
    safe = _UNPRINTABLE.sub(_escape, masked)
    cut = len(safe) > ECHO_CHARS or len(text) > 4 * ECHO_CHARS
    return f"{safe[: ECHO_CHARS - 3]}..." if cut else safe


def printable(text: str) -> str:
    """Return text whose every character a terminal can show; the others are escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\u{code:04x}" if code >> 8 else f"\\x{code:02x}"


def pointer(parts: Sequence[str | int]) -> str:
    """Return a JSON pointer; a part that is too long or not printable is shown as in messages."""
    return "".join(f"/{part}" if isinstance(part, int) else f"/{_token(part)}" for part in parts)


def _token(part: str) -> str:
    return show(part).replace("~", "~0").replace("/", "~1")


def is_sensitive_name(name: str) -> bool:
    """Return whether a variable of this name usually holds a credential."""
    return _SENSITIVE_NAME.search(name) is not None


def has_credential(text: str) -> bool:
    """Return whether text holds a credential of a well-known form."""
    return _CREDENTIAL.search(text) is not None


def looks_like_credential(name: str, value: str) -> bool:
    """Return whether a literal value under a name is a credential rather than a setting.

    ``PAD_TOKEN=[PAD]`` and ``MAX_TOKENS=512`` are settings; ``HF_TOKEN=hf_...`` is not.
    """
    if has_credential(value):
        return True
    if not value or not is_sensitive_name(name):
        return False
    return _ALWAYS_SECRET.search(name) is not None or _OPAQUE.fullmatch(value) is not None
