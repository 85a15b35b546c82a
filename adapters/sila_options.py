"""What a host's owner says about a laboratory device: the options of its backend in fabric.toml.

::

    [backends.plate.options]
    address = "192.0.2.7:50052"          # of its SiLA 2 server
    device = "plate"                     # what requests call it; the backend's name by default
    tls = true                           # false only for a server on this machine
    root_certificates = "/etc/lab/ca.pem"   # who signs the server's certificate
    certificate = "/etc/lab/fabric.pem"     # what this host shows, where the server asks
    key = "/etc/lab/fabric.key"
    cancel = "PlateHandler.Cancel"       # ends one execution; its parameter is the UUID
    halt = "PlateHandler.Halt"           # the emergency stop: no parameters
    timeout_s = 5.0                      # how long the server may take for an answer

Without ``cancel`` and ``halt`` the feature ``CancelController`` is used where the device has it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters import option_checks
from temporal_fabric.errors import Problem, RequestRejected

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_ADDRESS = re.compile(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})\Z")
_COMMAND = re.compile(r"[A-Za-z][A-Za-z0-9._/-]*\.[A-Za-z][A-Za-z0-9]*\Z")
_HERE = frozenset({"localhost", "127.0.0.1", "[::1]"})


@dataclass(frozen=True, slots=True)
class SilaOptions:
    """How a device is reached, and how it is stopped."""

    address: str
    device: str
    tls: bool = True
    root_certificates: str = ""
    certificate: str = ""
    key: str = ""
    cancel: str = ""
    halt: str = ""
    pause: str = ""
    resume: str = ""
    timeout_s: float = 5.0

    @property
    def host(self) -> str:
        """The host of the address."""
        return self.address.rpartition(":")[0]

    @property
    def port(self) -> int:
        """The port of the address."""
        return int(self.address.rpartition(":")[2])


def read_options(options: Mapping[str, Any], backend: str) -> SilaOptions:
    """Return the options of a backend.

    Raises:
        RequestRejected: an option is missing, unknown or has a wrong value; each is a problem.
    """
    at = f"/backends/{backend}/options"
    problems = [*option_checks.names(options, SilaOptions, at)]
    problems += [
        Problem("E_TYPE", f"{at}/{name}", text, actual=repr(options[name])[:80])
        for name, (right, text) in _RULES.items()
        if name in options and not right(options[name])
    ]
    if "address" not in options:
        text = 'say where the SiLA server is: address = "host:port"'
        problems.append(Problem("E_MISSING", f"{at}/address", text))
    if not problems and options.get("tls") is False and not _is_here(options["address"]):
        text = "tls may be false only for a server on this machine: who listens could move the arm"
        problems.append(Problem("E_CONFLICT", f"{at}/tls", text, actual=options["address"]))
    if problems:
        raise RequestRejected(problems, source="fabric.toml")
    given: dict[str, Any] = {"device": backend, **options}
    return SilaOptions(**given)


def _is_here(address: str) -> bool:
    return address.rpartition(":")[0] in _HERE


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


def _path(value: Any) -> bool:
    return _text(value) and value.startswith("/")


def _port(value: Any) -> bool:
    found = _ADDRESS.match(value) if isinstance(value, str) else None
    return found is not None and 0 < int(found[2]) < 2**16


def _command(value: Any) -> bool:
    return isinstance(value, str) and _COMMAND.match(value) is not None


def _seconds(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 60  # noqa: PLR2004


_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "address": (_port, "address is host:port"),
    "device": (_text, "device is a name"),
    "tls": (lambda value: isinstance(value, bool), "tls is true or false"),
    "root_certificates": (_path, "root_certificates is a full path"),
    "certificate": (_path, "certificate is a full path"),
    "key": (_path, "key is a full path"),
    "cancel": (_command, "cancel is Feature.Command"),
    "halt": (_command, "halt is Feature.Command"),
    "pause": (_command, "pause is Feature.Command"),
    "resume": (_command, "resume is Feature.Command"),
    "timeout_s": (_seconds, "timeout_s is a number of seconds, 60 at most"),
}
