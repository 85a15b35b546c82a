"""A process per host that runs payloads, outlives the worker and remembers every attempt.

The worker's side is `LauncherClient`. The launcher's side is started from file paths without
site-packages, so every module here except the client's imports the standard library, its
siblings and `temporal_fabric.failpoints` only. Names are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from temporal_fabric.launcher.client import LauncherClient
    from temporal_fabric.launcher.protocol import LaunchRecord, LaunchSpec

__all__ = ["LaunchRecord", "LaunchSpec", "LauncherClient"]

_HOMES = {
    "LaunchRecord": "temporal_fabric.launcher.protocol",
    "LaunchSpec": "temporal_fabric.launcher.protocol",
    "LauncherClient": "temporal_fabric.launcher.client",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
