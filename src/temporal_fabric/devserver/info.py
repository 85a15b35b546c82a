"""``server.json``: which server of a home runs, and whether it still does."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, cast

from temporal_fabric.devserver.cache import write_atomically

ADDRESS_ENV = "TEMPORAL_ADDRESS"
FILE = "server.json"

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_BOOT_KEY = "boot_id"


@dataclass(frozen=True)
class ServerInfo:
    """A running embedded server."""

    address: str
    """``host:port`` for clients."""

    ui_url: str | None
    """Web UI, None when it is off."""

    pid: int
    start_time: int
    """When the process began, in the kernel's ticks: with the pid it names one process."""

    namespace: str
    db: str
    """Database file."""

    version: str
    """Version of the Temporal server."""

    home: str


def read_server_info(home: Path) -> ServerInfo | None:
    """Return what runs under a home; None when nothing does or the file is a leftover."""
    try:
        data = cast("dict[str, Any]", json.loads((home / FILE).read_text(encoding="utf-8")))
        boot = data.pop(_BOOT_KEY)
        names = {field.name for field in fields(ServerInfo)}
        info = ServerInfo(**{name: data[name] for name in names})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    # After a reboot, or on another host of a shared home, the pid means nothing.
    if boot != boot_id() or start_time_of(info.pid) != info.start_time:
        return None
    return info


def write_server_info(info: ServerInfo) -> None:
    """Publish a server that answers."""
    data = asdict(info) | {_BOOT_KEY: boot_id()}
    write_atomically(Path(info.home) / FILE, json.dumps(data, indent=1) + "\n")


def remove_server_info(info: ServerInfo) -> None:
    """Remove a server's own file; a successor's file stays."""
    path = Path(info.home) / FILE
    try:
        data = cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8")))
        if [data["pid"], data["start_time"]] == [info.pid, info.start_time]:
            path.unlink()
    except (OSError, ValueError, KeyError, TypeError):
        return


def resolve_address(home: Path) -> str | None:
    """Return the server to talk to: ``TEMPORAL_ADDRESS``, else the one running under a home."""
    named = os.environ.get(ADDRESS_ENV)
    if named:
        return named
    info = read_server_info(home)
    return None if info is None else info.address


def boot_id() -> str:
    """Return what names this boot of this machine, or an empty string."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def start_time_of(pid: int) -> int | None:
    """Return when a live process began, None when it is gone or only waits to be reaped."""
    if sys.platform != "linux":
        return 0 if _signalable(pid) else None
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name in parentheses may hold anything, so count from behind it.
    values = stat.rpartition(")")[2].split()
    return None if values[0] in {"Z", "X"} else int(values[19])


def _signalable(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
