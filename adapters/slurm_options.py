"""What a Slurm backend is told: the options of ``[backends.NAME.options]`` in fabric.toml.

::

    [backends.cluster.options]
    host = "login.example.org"
    user = "ada"
    key = "~/.ssh/id_ed25519"               # or agent = true
    host_key = "ssh-ed25519 AAAAC3Nza..."   # or known_hosts = "~/.ssh/known_hosts"
    partition = "batch"
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters import option_checks
from temporal_fabric.adapters.option_checks import Span
from temporal_fabric.adapters.ssh_target import Target, read_target
from temporal_fabric.errors import Problem
from temporal_fabric.shapes import is_list

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.,:+-]{0,127}\Z")
_FOLDER = re.compile(r"[A-Za-z0-9_./+@=-]{1,512}\Z")
_TEXTS = ("host", "user", "key", "host_key", "known_hosts", "folder", "bin", "python", "setup")
_WORDS = ("partition", "account", "qos")
_NUMBERS = {
    "port": Span(1, 65535, whole=True, code="E_SSH_TARGET"),
    "sessions": Span(1, 32, whole=True),
    "connect_s": Span(1, 300),
    "answer_s": Span(1, 600),
    "poll_s": Span(0.1, 600),
    "settle_s": Span(0.1, 600),
}


@dataclass(frozen=True, slots=True)
class SlurmOptions:
    """One site, and how to reach it."""

    host: str
    user: str
    port: int = 22
    key: str = ""
    """Private key file; without one the keys of the SSH agent are tried."""

    agent: bool = False
    host_key: str = ""
    """The login node's public key, as in ``ssh-ed25519 AAAA...``."""

    known_hosts: str = "~/.ssh/known_hosts"
    """File with the keys of login node and jump hosts; only what stands there is trusted."""

    jump: tuple[str, ...] = ()
    """Hosts on the way, ``user@host:port``, nearest first."""

    folder: str = ".temporal-fabric"
    """Where attempts lie; shared by login and compute nodes; a relative one is below the home."""

    bin: str = ""
    """Folder of Slurm's commands, where they are not on PATH."""

    python: str = "python3"
    """Python 3.8 or newer, on login and compute nodes."""

    setup: str = ""
    """A shell file of the cluster that each job reads first, such as one that loads modules."""

    partition: str = ""
    account: str = ""
    qos: str = ""
    sessions: int = 6
    """SSH sessions at once on the one connection; sshd allows ten by default."""

    connect_s: float = 10.0
    answer_s: float = 30.0
    """How long one of Slurm's commands may take."""

    poll_s: float = 3.0
    """Pause between two looks at the queue; one look serves all attempts."""

    settle_s: float = 10.0
    """How long a job that Slurm calls ended may take to write down how."""

    @property
    def target(self) -> Target:
        """The login node."""
        return Target(self.user, self.host, self.port)

    @property
    def jumps(self) -> tuple[Target, ...]:
        """The hosts on the way."""
        return tuple(read_target(text, user=self.user) for text in self.jump)


def slurm_options(options: Mapping[str, Any]) -> SlurmOptions:
    """Return options without problems as one object; sets nothing up."""
    given: dict[str, Any] = dict(options)
    given["jump"] = tuple(_listed(given.get("jump", [])))
    return SlurmOptions(**given)


def check_options(options: Mapping[str, Any], backend: str) -> list[Problem]:
    """Return everything that is wrong with a backend's options, in the order of the options.

    Args:
        options: The table as it was read.
        backend: The backend's name, for the paths.
    """
    at = f"/backends/{backend}/options"
    return [
        *option_checks.names(options, SlurmOptions, at),
        *_check_texts(options, at),
        *option_checks.flags(options, ("agent",), at),
        *option_checks.numbers(options, _NUMBERS, at),
        *_check_way(options, at),
    ]


def _check_texts(options: Mapping[str, Any], at: str) -> Iterator[Problem]:
    for name in (*_TEXTS, *_WORDS):
        value = options.get(name, "")
        if not isinstance(value, str):
            yield Problem("E_TYPE", f"{at}/{name}", f"{name} is a text")
        elif name in _WORDS and value and not _WORD.match(value):
            message = f"{name} is a name that Slurm knows, of A-Z a-z 0-9 _ . , : + -"
            yield Problem("E_SLURM_FIELD", f"{at}/{name}", message, actual=value[:80])
        elif name in {"folder", "bin", "python", "setup"} and value:
            plain = _FOLDER.match(value) and not value.startswith("-")
            if not plain or ".." in Path(value).parts:
                message = f"{name} is a plain path on the cluster, without spaces and '..'"
                yield Problem("E_PATH", f"{at}/{name}", message, actual=value[:80])


def _check_way(options: Mapping[str, Any], at: str) -> Iterator[Problem]:
    """Check how the login node is reached: the rules of an SSH target, and its key."""
    for name in ("host", "user"):
        value = options.get(name)
        if value is None:
            yield Problem("E_MISSING", f"{at}/{name}", f"set {name} to the login node's {name}")
    host, user = options.get("host", "host"), options.get("user", "user")
    if isinstance(host, str) and isinstance(user, str):
        try:
            Target.checked(user, host)
        except ValueError as exc:
            yield Problem("E_SSH_TARGET", f"{at}/host", str(exc), actual=f"{user}@{host}"[:80])
    jump = options.get("jump", [])
    if not is_list(jump) and not isinstance(jump, str):
        yield Problem("E_TYPE", f"{at}/jump", "jump is a list of user@host:port, nearest first")
    for place, text in enumerate(_listed(jump)):
        try:
            read_target(text, user="user")
        except ValueError as exc:
            yield Problem("E_SSH_TARGET", f"{at}/jump/{place}", str(exc), actual=str(text)[:80])
    yield from _check_keys(options, at)


def _check_keys(options: Mapping[str, Any], at: str) -> Iterator[Problem]:
    key, agent = options.get("key"), options.get("agent", False)
    if isinstance(key, str) and key and not Path(key).expanduser().is_file():
        message = "there is no such key file on this host; name the private key, or set agent"
        yield Problem("E_PATH", f"{at}/key", message, actual=key[:80])
    if not key and agent is False:
        yield Problem("E_MISSING", f"{at}/key", "set key to a private key file, or agent = true")
    pinned = options.get("host_key")
    if (
        isinstance(pinned, str)
        and pinned
        and not re.match(r"[a-z0-9@.-]+ [A-Za-z0-9+/=]+\Z", pinned)
    ):
        message = "host_key is a public key in one line: ssh-ed25519 AAAA..."
        yield Problem("E_HOSTKEY", f"{at}/host_key", message, actual=pinned[:80])


def _listed(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [value]
    return [*value] if is_list(value) else []
