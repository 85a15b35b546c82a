"""Which servers that are not public the worker may talk to, as the host's owner says.

``[artifacts]`` says it of what inputs are read from, ``[notify]`` of who is told of events:
reading from a server inside the network and writing to it are two permissions.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from temporal_fabric.errors import Problem
from temporal_fabric.shapes import is_list, is_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

REACH_KEYS = ("networks", "hosts", "ca_file")


@dataclass(frozen=True, slots=True)
class Reach:
    """What ``https://`` may reach besides the public network; nothing by default."""

    networks: tuple[str, ...] = ()
    """Networks that are not public and are allowed all the same."""

    hosts: dict[str, str] = field(default_factory=dict[str, str])
    """Addresses of servers that no name service knows; naming one here allows it."""

    ca_file: str = ""
    """Certificates to trust instead of the system's, in PEM."""


def reach(table: Mapping[str, Any]) -> Reach:
    """Return the reach that a checked table describes."""
    given: dict[str, Any] = {**table, "networks": tuple(table.get("networks", ()))}
    return Reach(**given)


def check_table(name: str, table: Any, keys: tuple[str, ...] = REACH_KEYS) -> Iterator[Problem]:
    """Yield every problem of a table that has a reach, further keys' values left out."""
    if not is_table(table):
        yield Problem("E_TYPE", f"/{name}", f"{name} is a table")
        return
    for key in table:
        if key not in keys:
            yield Problem(
                "E_UNKNOWN_FIELD", f"/{name}/{key}", f"unknown setting {key!r}", allowed=keys
            )
    hosts, networks = table.get("hosts", {}), table.get("networks", [])
    if not is_list(networks) or not all(_is_network(item) for item in networks):
        yield Problem("E_TYPE", f"/{name}/networks", "a list such as ['10.1.0.0/16']")
    if not is_table(hosts) or not all(_is_network(item) for item in hosts.values()):
        yield Problem("E_TYPE", f"/{name}/hosts", "a table of host names and addresses")
    if not isinstance(table.get("ca_file", ""), str):
        yield Problem("E_TYPE", f"/{name}/ca_file", "ca_file is a path")


def _is_network(value: Any) -> bool:
    try:
        ipaddress.ip_network(value if isinstance(value, str) else "")
    except ValueError:
        return False
    return True
