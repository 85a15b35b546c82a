"""Reading capsules, wherever they lie; those in folders with the standard library alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temporal_fabric.beneath import Measured
from temporal_fabric.capsule.manifest import MANIFEST, Entry, Manifest
from temporal_fabric.display import table
from temporal_fabric.errors import CapsuleError, StoreError
from temporal_fabric.store import Objects, local_path, open_objects
from temporal_fabric.workplace import output_path

if TYPE_CHECKING:
    from collections.abc import Mapping

_ARTIFACTS = "artifacts"
_SHOWN = 20
"""How many files a notebook shows of a capsule."""


@dataclass(frozen=True, slots=True)
class Capsule:
    """A sealed capsule, in a folder or in a bucket."""

    objects: Objects
    """Its files, by the names in the manifest."""

    manifest: Manifest

    @classmethod
    def open(cls, where: str | Path) -> Capsule:
        """Open a sealed capsule.

        Args:
            where: A ``file://`` or ``s3://`` URI such as ``result.capsule``, or a folder.

        Raises:
            CapsuleError: there is no sealed capsule.
            StoreError: it is out of reach.
        """
        uri = (
            where if isinstance(where, str) and "://" in where else Path(where).absolute().as_uri()
        )
        objects = open_objects(uri)
        data = objects.read(MANIFEST)
        if data is None:
            raise CapsuleError(f"no sealed capsule [uri={uri}]: has the experiment ended?")
        manifest = Manifest.parse(data)
        if manifest.given_up_for:
            raise CapsuleError(
                f"the run was sealed without the host that has its files [uri={uri}]: open "
                f"{manifest.given_up_for}"
            )
        return cls(objects, manifest)

    @property
    def uri(self) -> str:
        """Where it lies."""
        return self.objects.root

    @property
    def folder(self) -> Path:
        """Its folder on this machine.

        Raises:
            CapsuleError: it lies in a bucket: `read` a file of it, or `get` outputs.
        """
        folder = local_path(self.uri)
        if folder is None:
            raise CapsuleError(
                f"the capsule is not a folder of this machine [uri={self.uri}]: read() a file of "
                "it, or copy its outputs with 'temporal-fabric get'"
            )
        return folder

    @property
    def where(self) -> str:
        """Its folder on this machine, else its URI."""
        return str(local_path(self.uri) or self.uri)

    def read(self, name: str) -> bytes:
        """Return the content of one file.

        Raises:
            CapsuleError: there is no such file.
            StoreError: it is out of reach.
        """
        data = self.objects.read(name)
        if data is None:
            raise CapsuleError(f"no such file in the capsule [uri={self.uri}, file={name}]")
        return data

    def output(self, name: str) -> Path:
        """Return the path of one output, a file or a folder.

        Args:
            name: The name that the request gave it, its file's name, or its path below the
                output folder.

        Raises:
            CapsuleError: there is no such output, or the capsule lies in a bucket.
        """
        return self.folder / _ARTIFACTS / self.output_path(name)

    def output_files(self, name: str) -> list[tuple[str, Entry]]:
        """Return the files of one output with their names in it; ``""`` for a single file.

        Raises:
            CapsuleError: there is no such output.
        """
        path = f"{_ARTIFACTS}/{self.output_path(name)}"
        return [
            (entry.path.removeprefix(path).removeprefix("/"), entry)
            for entry in self.manifest.files
            if entry.path == path or entry.path.startswith(f"{path}/")
        ]

    def output_path(self, name: str) -> str:
        """Return the path of one output below the output folder; see `output`."""
        request = json.loads(self.read("request.json"))
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
        record: dict[str, Any] = json.loads(self.read("result.json"))
        return record

    def _repr_html_(self) -> str:
        total = sum(entry.size for entry in self.manifest.files)
        files = [(entry.path, f"{entry.size} bytes") for entry in self.manifest.files]
        title = f"capsule {self.where}: {len(files)} files, {total} bytes"
        return table(title, [*files[:_SHOWN], ("...", _more(len(files)))])

    def verify(self) -> list[str]:
        """Hash every file again; return what is missing or differs, empty where all is well."""
        wrong: list[str] = []
        for entry in self.manifest.files:
            measured = Measured(entry.path)
            try:
                for _ in measured.passing(self.objects.chunks(entry.path)):
                    pass
            except StoreError as exc:
                wrong.append(f"{entry.path}: {exc}")
                continue
            if measured.found != (entry.size, entry.sha256):
                wrong.append(f"{entry.path}: content differs from the manifest")
        return wrong


def outputs_by_name(request: Mapping[str, Any]) -> dict[str, str]:
    """Return the declared outputs of a request body: name to path below the output folder."""
    holders = (next(iter(request["payload"].values())), request.get("artifacts", {}))
    paths = {
        (output.get("name"), output_path(output["source_path"]))
        for holder in holders
        for output in holder.get("outputs", ())
    }
    by_file = {path.rpartition("/")[2]: path for _, path in paths if path}
    return by_file | {name: path for name, path in paths if name and path}


def _more(count: int) -> str:
    return f"and {count - _SHOWN} more" if count > _SHOWN else ""
