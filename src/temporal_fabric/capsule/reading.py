"""Reading capsules, with the standard library alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temporal_fabric import durable
from temporal_fabric.capsule.manifest import MANIFEST, Manifest
from temporal_fabric.errors import CapsuleError
from temporal_fabric.store import local_path


@dataclass(frozen=True, slots=True)
class Capsule:
    """A sealed capsule in a folder."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, where: str | Path) -> Capsule:
        """Open a sealed capsule.

        Args:
            where: A ``file://`` URI such as ``result.capsule``, or a folder.

        Raises:
            CapsuleError: there is no sealed capsule, or its scheme is not supported.
        """
        folder = local_path(where) if isinstance(where, str) and "://" in where else where
        if folder is None:
            raise CapsuleError(f"cannot open this capsule from here [uri={where}]")
        path = Path(folder)
        try:
            data = (path / MANIFEST).read_bytes()
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise CapsuleError(
                f"no sealed capsule [path={path}]: has the experiment ended?"
            ) from exc
        return cls(path, Manifest.parse(data))

    @property
    def result(self) -> dict[str, Any]:
        """The run's terminal record."""
        record: dict[str, Any] = json.loads((self.folder / "result.json").read_bytes())
        return record

    def verify(self) -> list[str]:
        """Hash every file again; return what is missing or differs, empty where all is well."""
        wrong: list[str] = []
        for entry in self.manifest.files:
            try:
                size, digest = durable.hash_file(self.folder / entry.path)
            except OSError as exc:
                wrong.append(f"{entry.path}: {exc.strerror}")
                continue
            if (size, digest) != (entry.size, entry.sha256):
                wrong.append(f"{entry.path}: content differs from the manifest")
        return wrong
