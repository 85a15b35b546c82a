"""Whose a device is, on this host: one attempt at a time, also while nobody drives it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from temporal_fabric import durable

if TYPE_CHECKING:
    from pathlib import Path


class Claim:
    """The claim on one device; a worker's death does not end it, for its plate is still there.

    Args:
        folder: The backend's own.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "claimed"

    def holder(self) -> str:
        """Return the attempt that has the device, empty where none has."""
        try:
            return self._path.read_text().strip()
        except FileNotFoundError:
            return ""

    def take(self, attempt: str) -> bool:
        """Claim the device; return whether it is this attempt's now."""
        durable.make_folder(self._path.parent)
        return durable.create(self._path, f"{attempt}\n".encode()) or self.holder() == attempt

    def release(self, attempt: str) -> None:
        """Give the device up, if it is this attempt's."""
        if self.holder() == attempt:
            self._path.unlink(missing_ok=True)
