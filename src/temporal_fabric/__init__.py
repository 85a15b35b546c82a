"""Durable experiments on whatever is there, carried by Temporal.

The public names are imported on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from temporal_fabric.capsule.reading import Capsule
    from temporal_fabric.client import Fabric
    from temporal_fabric.errors import (
        CapsuleError,
        ExperimentCanceled,
        ExperimentFailed,
        FabricError,
        MapFailed,
        Problem,
        RequestRejected,
    )
    from temporal_fabric.handle import ExperimentHandle
    from temporal_fabric.outcomes import ExperimentResult
    from temporal_fabric.plugin import FabricPlugin
    from temporal_fabric.requests.models import ExecutionRequest
    from temporal_fabric.sync import SyncFabric

__version__ = "0.1.0"

__all__ = [
    "Capsule",
    "CapsuleError",
    "ExecutionRequest",
    "ExperimentCanceled",
    "ExperimentFailed",
    "ExperimentHandle",
    "ExperimentResult",
    "Fabric",
    "FabricError",
    "FabricPlugin",
    "MapFailed",
    "Problem",
    "RequestRejected",
    "SyncFabric",
    "__version__",
]

_HOMES = {
    "Capsule": "temporal_fabric.capsule.reading",
    "CapsuleError": "temporal_fabric.errors",
    "ExecutionRequest": "temporal_fabric.requests.models",
    "ExperimentCanceled": "temporal_fabric.errors",
    "ExperimentFailed": "temporal_fabric.errors",
    "ExperimentHandle": "temporal_fabric.handle",
    "ExperimentResult": "temporal_fabric.messages",
    "Fabric": "temporal_fabric.client",
    "FabricError": "temporal_fabric.errors",
    "FabricPlugin": "temporal_fabric.plugin",
    "MapFailed": "temporal_fabric.errors",
    "Problem": "temporal_fabric.errors",
    "RequestRejected": "temporal_fabric.errors",
    "SyncFabric": "temporal_fabric.sync",
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
