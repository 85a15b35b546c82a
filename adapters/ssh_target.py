"""Rules of an SSH target: whom a connection may be opened to, ``user@host:port``.

Strict, because such texts have been read as options and as commands by programs on the way:
CVE-2023-51385 is a host name with shell metacharacters that an OpenSSH client expands.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address

_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}\Z")
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?\Z")
_PORTS = 65535


@dataclass(frozen=True, slots=True)
class Target:
    """One host and who logs in there."""

    user: str
    host: str
    port: int = 22

    def __str__(self) -> str:
        return f"{self.user}@{self.host}:{self.port}"

    @property
    def known_as(self) -> str:
        """The host's name in a file of known hosts."""
        return self.host if self.port == 22 else f"[{self.host}]:{self.port}"  # noqa: PLR2004

    @classmethod
    def checked(cls, user: str, host: str, port: int = 22) -> Target:
        """Return the target.

        Raises:
            ValueError: it breaks a rule; the message says which.
        """
        if not _USER.match(user):
            raise ValueError("the user of an SSH target is a plain login name")
        if not _is_host(host):
            raise ValueError("the host of an SSH target is a host name or an IP address")
        if not 1 <= port <= _PORTS:
            raise ValueError(f"the port of an SSH target is a number from 1 to {_PORTS}")
        return cls(user, host, port)


def read_target(text: object, *, user: str) -> Target:
    """Read ``[user@]host[:port]``; an IPv6 address with a port is written ``[::1]:22``.

    Args:
        text: What was written.
        user: Who logs in where the text does not say.

    Raises:
        ValueError: it is none; the message says why.
    """
    if not isinstance(text, str):
        raise ValueError("an SSH target is a text, user@host:port")  # noqa: TRY004 - one error
    who, at, place = text.rpartition("@")
    host, port = place, ""
    if place.startswith("["):
        host, end, rest = place[1:].partition("]")
        port = rest.removeprefix(":")
        if not end or (rest and rest == port):
            raise ValueError("an address in an SSH target is written [address]:port")
    elif place.count(":") == 1:
        host, _, port = place.partition(":")
    if port and not (port.isascii() and port.isdecimal()):
        raise ValueError(f"the port of an SSH target is a number from 1 to {_PORTS}")
    return Target.checked(who if at else user, host, int(port) if port else 22)


def _is_host(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        labels = host.removesuffix(".").split(".")
        return len(host) <= 253 and all(_LABEL.match(label) for label in labels)  # noqa: PLR2004
    return True
