"""The embedded Temporal server: find or build its binary, run it on a file under a home.

Imports nothing heavy: reading `server.json` must not cost an SDK import.
"""

from __future__ import annotations

from temporal_fabric.devserver.info import ServerInfo, read_server_info, resolve_address
from temporal_fabric.devserver.resolve import resolve_binary
from temporal_fabric.devserver.server import DevServer

__all__ = [
    "DevServer",
    "ServerInfo",
    "read_server_info",
    "resolve_address",
    "resolve_binary",
]
