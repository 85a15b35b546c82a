"""Reading capsules, with the standard library alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temporal_fabric import durable
from temporal_fabric.capsule.manifest import MANIFEST, Entry, Manifest
from temporal_fabric.display import table
from temporal_fabric.errors import CapsuleError
from temporal_fabric.store import local_path
from temporal_fabric.workplace import output_path

if TYPE_CHECKING:
    from collections.abc import Mapping

_ARTIFACTS = "artifacts"
_SHOWN = 20
"""How many files a notebook shows of a capsule."""


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

    def output(self, name: str) -> Path:
        """Return the path of one output, a file or a folder.

        Args:
            name: The name that the request gave it, its file's name, or its path below the
                output folder.

        Raises:
            CapsuleError: there is no such output.
        """
        return self.folder / _ARTIFACTS / self._output_path(name)

    def output_files(self, name: str) -> list[tuple[str, Entry]]:
        """Return the files of one output with their names in it; ``""`` for a single file.

        Raises:
            CapsuleError: there is no such output.
        """
        path = f"{_ARTIFACTS}/{self._output_path(name)}"
        return [
            (entry.path.removeprefix(path).removeprefix("/"), entry)
            for entry in self.manifest.files
            if entry.path == path or entry.path.startswith(f"{path}/")
        ]

    def _output_path(self, name: str) -> str:
        request = json.loads((self.folder / "request.json").read_bytes())
        named = outputs_by_name(request)
        files = self._artifacts()
        path = named.get(name, name).strip("/")
        if path and any(file == path or file.startswith(f"{path}/") for file in files):
            return path
        known = ", ".join([*named, *(f for f in files if f not in named)][:20])
        raise CapsuleError(f"no such output [name={name}]: there is {known or 'none'}")

    def _artifacts(self) -> list[str]:
        prefix = f"{_ARTIFACTS}/"
        paths = (entry.path for entry in self.manifest.files)
        return [path.removeprefix(prefix) for path in paths if path.startswith(prefix)]

    @property
    def result(self) -> dict[str, Any]:
        """The run's terminal record."""
        record: dict[str, Any] = json.loads((self.folder / "result.json").read_bytes())
        return record

    def _repr_html_(self) -> str:
        total = sum(entry.size for entry in self.manifest.files)
        files = [(entry.path, f"{entry.size} bytes") for entry in self.manifest.files]
        title = f"capsule {self.folder}: {len(files)} files, {total} bytes"
        return table(title, [*files[:_SHOWN], ("...", _more(len(files)))])

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


def outputs_by_name(request: Mapping[str, Any]) -> dict[str, str]:
    """Return the declared outputs of a request body: name to path below the output folder."""
    payload = next(iter(request["payload"].values()))
    paths = {
        (output.get("name"), output_path(output["source_path"]))
        for output in payload.get("outputs", ())
    }
    by_file = {path.rpartition("/")[2]: path for _, path in paths if path}
    return by_file | {name: path for name, path in paths if name and path}


def _more(count: int) -> str:
    return f"and {count - _SHOWN} more" if count > _SHOWN else ""
