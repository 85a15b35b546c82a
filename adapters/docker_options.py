"""What a host's owner says about a Docker backend: its options in fabric.toml.

::

    [backends.docker.options]
    host = "unix:///var/run/docker.sock"  # the engine; it shares this host's folders
    image = "python:3.12-slim"            # what process and python payloads run in
    images = ["registry.example/team/*", "sha256:0123..."]  # what else a request may name
    pull = true                           # whether an image that is not here is fetched
    mounts = ["/data/models"]             # what every payload may read, at the same path
    network = "bridge"                    # network of a payload that asks for one; none by default
    gpus = ["0", "1"]                     # devices, each given whole to one payload; or ["all"]
    user = "1000:1000"                    # who payloads run as; never root
    memory_bytes = 8000000000             # what a payload gets that asks for none
    cpus = 2.0
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters import container_rules, option_checks
from temporal_fabric.adapters.container_rules import RULES, Rules, is_text, is_texts
from temporal_fabric.errors import Problem, RequestRejected
from temporal_fabric.shapes import is_list

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_HOST = "unix:///var/run/docker.sock"

_NOBODY = "65534:65534"
_USER = re.compile(r"[1-9][0-9]{0,9}:[0-9]{1,10}\Z")
_UNIX = "unix:///"


@dataclass(frozen=True, slots=True)
class DockerOptions:
    """What the host's owner allows."""

    host: str = DEFAULT_HOST
    image: str = ""
    images: tuple[str, ...] = ()
    pull: bool = True
    mounts: tuple[str, ...] = ()
    network: str = ""
    gpus: tuple[str, ...] = ()
    user: str = ""
    memory_bytes: int | None = None
    cpus: float | None = None

    @property
    def socket(self) -> str:
        """Path of the engine's socket."""
        return self.host.removeprefix("unix://")


def read_options(options: Mapping[str, Any], backend: str) -> DockerOptions:
    """Return the options of a backend.

    Raises:
        RequestRejected: an option is unknown or has a wrong value; every one is a problem.
    """
    at = f"/backends/{backend}/options"
    problems = [
        *option_checks.names(options, DockerOptions, at),
        *container_rules.check(options, _RULES, at),
    ]
    if find_spec("docker") is None:
        text = "Docker's SDK is not installed: pip install 'temporal-fabric[docker]'"
        problems.append(Problem("E_RANGE", f"/backends/{backend}/kind", text))
    if problems:
        raise RequestRejected(problems, source="fabric.toml")
    given: dict[str, Any] = {n: tuple(v) if is_list(v) else v for n, v in options.items()}
    if os.environ.get("DOCKER_HOST", "").startswith(_UNIX):
        given.setdefault("host", os.environ["DOCKER_HOST"])
    given.setdefault("user", _own_user())
    return DockerOptions(**given)


def _own_user() -> str:
    """Return who payloads run as: the worker's user, who owns what they write; never root."""
    return f"{os.geteuid()}:{os.getegid()}" if os.geteuid() else _NOBODY


def _can_run_as(user: str) -> bool:
    # What a payload reads and writes has to be given to its user, which only root can do.
    return bool(_USER.match(user)) and (not os.geteuid() or user == _own_user())


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_RULES: Rules = {
    "host": (
        lambda value: is_text(value) and value.startswith(_UNIX),
        "E_TYPE",
        "host is unix:///path: an engine elsewhere sees other folders than this worker",
    ),
    **RULES,
    "network": (
        lambda value: is_text(value) and value not in {"host", "none"} and ":" not in value,
        "E_ISOLATION",
        "network names a network of the engine, such as bridge; never host or another container's",
    ),
    "gpus": (is_texts, "E_TYPE", 'gpus is a list of UUIDs or numbers, such as ["0"], or ["all"]'),
    "user": (
        lambda value: isinstance(value, str) and _can_run_as(value),
        "E_ISOLATION",
        "user is uid:gid in numbers, not root; another than the worker's only for a worker of root",
    ),
    "memory_bytes": (
        lambda value: _number(value) and isinstance(value, int) and value >= 2**23,
        "E_RANGE",
        "memory_bytes is a whole number from 8388608 on",
    ),
    "cpus": (
        lambda value: _number(value) and value > 0,
        "E_RANGE",
        "cpus is a number above 0",
    ),
}
