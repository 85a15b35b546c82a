"""The manifest of a capsule: written last, so its presence means that the capsule is whole.

``manifest.toml`` lists every other file with its size and sha256. A crash before it leaves a
readable but unsealed folder; a crash after it leaves a sealed capsule.

One side alone can create it. Whoever seals a run without the host that has its files creates one
first that lists none and names the capsule that counts: the host, should it come back, finds that
it may not seal any more.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import Any

import tomli_w

from temporal_fabric.errors import CapsuleError

MANIFEST = "manifest.toml"
SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a capsule."""

    path: str
    """Relative to the capsule, with ``/``."""

    size: int
    """Bytes."""

    sha256: str
    """Hex digest of the content."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a capsule holds, and of which run it is."""

    experiment: dict[str, Any]
    files: tuple[Entry, ...]
    sealed_at: str
    given_up_for: str = ""
    """URI of the capsule that counts instead of this one, which will never be whole."""

    def dump(self) -> bytes:
        """Return the manifest as TOML."""
        table = {
            "schema_version": SCHEMA_VERSION,
            "sealed_at": self.sealed_at,
            **({"given_up_for": self.given_up_for} if self.given_up_for else {}),
            "experiment": {key: value for key, value in self.experiment.items() if value != ""},
            "files": [
                {"path": file.path, "size": file.size, "sha256": file.sha256} for file in self.files
            ],
        }
        return tomli_w.dumps(table).encode()

    @classmethod
    def parse(cls, data: bytes) -> Manifest:
        """Read a manifest.

        Raises:
            CapsuleError: it is damaged, or written by a newer version.
        """
        try:
            table = tomllib.loads(data.decode())
            version = table["schema_version"]
            files = tuple(Entry(**entry) for entry in table["files"])
            given_up_for = str(table.get("given_up_for", ""))
            manifest = cls(dict(table["experiment"]), files, str(table["sealed_at"]), given_up_for)
        except (ValueError, KeyError, TypeError) as exc:
            raise CapsuleError(f"damaged manifest: {exc}") from exc
        if version != SCHEMA_VERSION:
            raise CapsuleError(
                f"unknown manifest version [found={version}, known={SCHEMA_VERSION}]: "
                "read it with a newer temporal-fabric"
            )
        return manifest
