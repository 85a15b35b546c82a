"""What a Slurm backend is told: the options of ``[backends.NAME.options]`` in fabric.toml.

With ``url`` Slurm is asked through slurmrestd, and the site's folder is mounted here; without it
everything goes over SSH to a login node::

    [backends.cluster.options]              [backends.cloud.options]
    host = "login.example.org"              url = "https://slurm.example.org"
    user = "ada"                            user = "ada"
    key = "~/.ssh/id_ed25519"               token = "~/.slurm/token"
    host_key = "ssh-ed25519 AAAAC3Nza..."   ca = "~/.slurm/site.pem"
    partition = "batch"                     folder = "/shared/ada/fabric"
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters import container_rules, option_checks
from temporal_fabric.adapters.option_checks import Span
from temporal_fabric.adapters.slurm_runtimes import RUNTIMES
from temporal_fabric.adapters.ssh_target import Target, read_target
from temporal_fabric.errors import Problem, RequestRejected
from temporal_fabric.requests.uris import mask_credentials
from temporal_fabric.shapes import is_list

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from temporal_fabric.adapters.container_rules import Rules

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.,:+-]{0,127}\Z")
_FOLDER = re.compile(r"[A-Za-z0-9_./+@=-]{1,512}\Z")
_WORDS = ("partition", "account", "qos")
_PLAIN = ("folder", "bin", "python", "setup", "image_folder")
_NETWORK = "network is host, the node's own, or is left out: containers have none then"
_CONTAINERS: Rules = {
    **container_rules.RULES,
    "runtime": (
        lambda value: value in RUNTIMES,
        "E_RANGE",
        f"runtime is one of {', '.join(RUNTIMES)}: what the nodes have",
    ),
    "network": (lambda value: value == "host", "E_ISOLATION", _NETWORK),
    "mounts": (
        lambda value: container_rules.RULES["mounts"][0](value) and all(map(_FOLDER.match, value)),
        "E_PATH",
        "mounts is a list of full plain paths of the nodes, without /, /proc, /sys and /dev",
    ),
}
_URL = re.compile(r"(https?)://([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?/?\Z")
_HERE = re.compile(r"localhost\Z|127\.[0-9.]+\Z|\[::1\]\Z")
_NEEDED = {
    "user": "whose token it is, and whose jobs they are",
    "token": "a file with the token",
    "folder": "a folder that this host shares with the cluster",
}
API_VERSIONS = ("v0.0.42", "v0.0.41", "v0.0.40", "v0.0.38")
"""Versions of slurmrestd's interface that are understood, the best one first."""

_NUMBERS = {
    "port": Span(1, 65535, whole=True, code="E_SSH_TARGET"),
    "sessions": Span(1, 32, whole=True),
    "connect_s": Span(1, 300),
    "answer_s": Span(1, 600),
    "poll_s": Span(0.1, 600),
    "settle_s": Span(0.1, 600),
    "array_min": Span(0, 100_000, whole=True),
    "array_wait_s": Span(0.1, 60),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmOptions:
    """One site, however it is reached."""

    user: str
    """Whose jobs they are."""

    folder: str = ".temporal-fabric"
    """Where attempts lie; shared by all nodes; a relative one is below the home."""

    python: str = "python3"
    """Python 3.8 or newer, on login and compute nodes."""

    setup: str = ""
    """A shell file of the cluster that each job reads first, such as one that loads modules."""

    runtime: str = ""
    """The container runtime of the nodes; without one there are no containers."""

    image: str = ""
    """What `process` and `python` payloads run in; without one they run on the node as it is."""

    images: tuple[str, ...] = ()
    """What else a request may name."""

    image_folder: str = ""
    """Where the nodes have the images."""

    pull: bool = False
    """Whether a node fetches an image that is not there."""

    mounts: tuple[str, ...] = ()
    network: str = ""
    """``host`` where a container that asks for a network gets the node's."""

    partition: str = ""
    account: str = ""
    qos: str = ""
    sessions: int = 6
    """SSH sessions at once on the one connection, of which sshd allows ten; or HTTP ones."""

    connect_s: float = 10.0
    answer_s: float = 30.0
    """How long one of Slurm's commands, or one call to slurmrestd, may take."""

    poll_s: float = 3.0
    """Pause between two looks at the queue; one look serves all attempts."""

    settle_s: float = 10.0
    """How long a job that Slurm calls ended may take to write down how."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SshOptions(SlurmOptions):
    """A site that is reached by its login node."""

    host: str
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

    bin: str = ""
    """Folder of Slurm's commands, where they are not on PATH."""

    array_min: int = 5
    """So many submissions of one shape that come together become one array of jobs; 0: never."""

    array_wait_s: float = 2.0
    """How long a submission waits at most for others, while that many come in this time."""

    @property
    def target(self) -> Target:
        """The login node."""
        return Target(self.user, self.host, self.port)

    @property
    def jumps(self) -> tuple[Target, ...]:
        """The hosts on the way."""
        return tuple(read_target(text, user=self.user) for text in self.jump)


@dataclass(frozen=True, slots=True, kw_only=True)
class RestOptions(SlurmOptions):
    """A site that offers slurmrestd, and a folder that is mounted here too."""

    url: str
    """Of slurmrestd or the proxy before it; without TLS on this host only."""

    token: str
    """File with a token of the user, as ``scontrol token`` prints it."""

    ca: str = ""
    """File with the certificates that are trusted; without it those of this host."""

    api: str = ""
    """Version of slurmrestd's interface; without it the best one that is offered."""


def read_options(options: Mapping[str, Any], backend: str) -> SshOptions | RestOptions:
    """Return the options of a backend; sets nothing up.

    Raises:
        RequestRejected: one is unknown or has a wrong value; every one is a problem.
    """
    problems = check_options(options, backend)
    if problems:
        raise RequestRejected(problems)
    given: dict[str, Any] = {n: tuple(v) if is_list(v) else v for n, v in options.items()}
    if "url" in given:
        return RestOptions(**given)
    given["jump"] = tuple(_listed(options.get("jump", [])))
    return SshOptions(**given)


def check_options(options: Mapping[str, Any], backend: str) -> list[Problem]:
    """Return everything that is wrong with a backend's options, in the order of the options.

    Args:
        options: The table as it was read.
        backend: The backend's name, for the paths.
    """
    at = f"/backends/{backend}/options"
    shape = RestOptions if "url" in options else SshOptions
    known = {field.name for field in fields(shape)}
    ours = {name: value for name, value in options.items() if name in known}
    return [
        *option_checks.names(options, shape, at),
        *_check_texts(ours, at),
        *option_checks.flags(ours, ("agent",), at),
        *container_rules.check(ours, _CONTAINERS, at),
        *_check_runtime(ours, at),
        *option_checks.numbers(ours, _NUMBERS, at),
        *(_check_url(ours, at) if shape is RestOptions else _check_way(ours, at)),
    ]


def _check_texts(options: Mapping[str, Any], at: str) -> Iterator[Problem]:
    for name, value in options.items():
        if name in {*_NUMBERS, *_CONTAINERS, "agent", "jump"}:
            continue
        if not isinstance(value, str):
            yield Problem("E_TYPE", f"{at}/{name}", f"{name} is a text")
        elif name in _WORDS and value and not _WORD.match(value):
            message = f"{name} is a name that Slurm knows, of A-Z a-z 0-9 _ . , : + -"
            yield Problem("E_SLURM_FIELD", f"{at}/{name}", message, actual=value[:80])
        elif name in _PLAIN and value:
            plain = _FOLDER.match(value) and not value.startswith("-")
            if not plain or ".." in Path(value).parts:
                message = f"{name} is a plain path on the cluster, without spaces and '..'"
                yield Problem("E_PATH", f"{at}/{name}", message, actual=value[:80])


def _check_runtime(options: Mapping[str, Any], at: str) -> Iterator[Problem]:
    """Check that what is said about containers belongs together."""
    if "runtime" not in options:
        for name in (*_CONTAINERS, "image_folder"):
            if name in options:
                message = f"{name} is about containers: set runtime to what the nodes have"
                yield Problem("E_MISSING", f"{at}/runtime", message, allowed=tuple(RUNTIMES))
        return
    folder = options.get("image_folder")
    if not isinstance(folder, str) or not folder.startswith("/"):
        message = "set image_folder to the folder with the images, a full path that all nodes have"
        yield Problem("E_MISSING", f"{at}/image_folder", message)


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


def _check_url(options: Mapping[str, Any], at: str) -> Iterator[Problem]:
    """Check how slurmrestd is reached: nothing that bears the token is sent in the clear."""
    for name, what in _NEEDED.items():
        if name not in options:
            yield Problem("E_MISSING", f"{at}/{name}", f"set {name} to {what}")
    url, user, api = (options.get(name) for name in ("url", "user", "api"))
    found = _URL.match(url) if isinstance(url, str) else None
    if isinstance(url, str) and found is None:
        message = "url is https://HOST or https://HOST:PORT, without a path"
        yield Problem("E_URI_SCHEME", f"{at}/url", message, actual=mask_credentials(url)[:80])
    elif found is not None and found[1] == "http" and not _HERE.match(found[2]):
        message = (
            "without TLS the token could be read on the way: use https, or an address of this host"
        )
        yield Problem("E_URI_SCHEME", f"{at}/url", message, allowed=("https",))
    if isinstance(user, str) and not _WORD.match(user):
        yield Problem("E_SLURM_FIELD", f"{at}/user", "user is a login name", actual=user[:80])
    for name in ("token", "ca"):
        path = options.get(name)
        if isinstance(path, str) and path and not Path(path).expanduser().is_file():
            message = f"there is no such file on this host; {name} names a file"
            yield Problem("E_PATH", f"{at}/{name}", message, actual=path[:80])
    if isinstance(options.get("folder"), str) and not options["folder"].startswith("/"):
        message = "folder is an absolute path, the same one here and on the cluster"
        yield Problem("E_PATH", f"{at}/folder", message, actual=options["folder"][:80])
    if isinstance(api, str) and api and api not in API_VERSIONS:
        message = f"api is a version that this fabric knows: {', '.join(API_VERSIONS)}"
        yield Problem("E_RANGE", f"{at}/api", message, actual=api[:80], allowed=API_VERSIONS)


def _listed(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [value]
    return [*value] if is_list(value) else []
