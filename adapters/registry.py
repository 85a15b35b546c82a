"""Finding adapters: entry points of the group ``temporal_fabric.adapters``, by kind."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from temporal_fabric.errors import PermanentBackendError

if TYPE_CHECKING:
    from temporal_fabric.adapters.contract import Adapter
    from temporal_fabric.config import BackendConfig, Settings

GROUP = "temporal_fabric.adapters"


def kinds() -> list[str]:
    """Return the kinds that are installed."""
    return sorted(entry.name for entry in entry_points(group=GROUP))


def build(config: BackendConfig, settings: Settings, host: str) -> Adapter:
    """Make the adapter of one configured backend.

    The entry point names a callable ``(config, settings, host) -> Adapter``.

    Raises:
        PermanentBackendError: no installed adapter has this kind.
    """
    for entry in entry_points(group=GROUP):
        if entry.name == config.kind:
            adapter: Adapter = entry.load()(config, settings, host)
            return adapter
    raise PermanentBackendError(
        f"no adapter for this kind of backend [backend={config.name}, kind={config.kind}]: "
        f"installed kinds are {', '.join(kinds()) or 'none'}"
    )
