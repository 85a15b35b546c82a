"""Which addresses an ``https://`` URI of a request may mean.

A request names hosts, so it could make the worker talk to the inside of the network, or to the
worker itself. A name is resolved once, every address is judged, and the connection goes to
the judged address: a name that changes its mind in between changes nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING

from temporal_fabric.errors import ArtifactFailed, TransientBackendError

if TYPE_CHECKING:
    from temporal_fabric.reach import Reach

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def judged_addresses(host: str, port: int, reach: Reach) -> list[str]:
    """Resolve a host and return its addresses, all of them allowed.

    Raises:
        ArtifactFailed: E_URI_HOST, one of them is not public and not allowed by the settings.
        TransientBackendError: the name cannot be resolved now.
    """
    if host in reach.hosts:
        return [reach.hosts[host]]
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as exc:
        raise TransientBackendError(f"the host {host} cannot be resolved: {exc}") from exc
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for address in addresses:
        if not allowed(address, reach):
            raise ArtifactFailed(
                f"E_URI_HOST: {host} is at {address}, inside the network; `networks` in the "
                "worker's fabric.toml could allow it: in [artifacts] for inputs, in [notify] for "
                "receivers of events"
            )
    return addresses


def allowed(text: str, reach: Reach) -> bool:
    """Say whether an address is public, or in a network that the settings allow."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if any(address in ipaddress.ip_network(network) for network in reach.networks):
        return True
    return all(part.is_global and not part.is_multicast for part in _meant(address))


def _meant(address: Address) -> list[Address]:
    """Return an address and the IPv4 address that it stands for, where it carries one."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    inner: list[Address] = [] if address.sixtofour is None else [address.sixtofour]
    if address in _NAT64:
        inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [address, *inner]
