"""The folder of a run: a capsule that is whole at every moment.

Rows and events are kept back until a checkpoint is written, and become durable before it: after
any crash the folder holds exactly what led to its last good checkpoint, and a run that goes on
from there writes the rest as if it had never stopped. The manifest points to the checkpoint, and
at the end lists every file with its digest.
"""

from __future__ import annotations

import io
import json
import tomllib
from typing import TYPE_CHECKING, Any

import numpy as np
import tomli_w

from temporal_fabric import durable
from temporal_fabric.capsule.manifest import MANIFEST
from temporal_fabric.clock import now
from temporal_fabric.errors import CapsuleError
from temporal_fabric.flows import checkpoint, tables
from temporal_fabric.recorder.flow_runs import SEGMENTS, WHOLE, number_of, parts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from temporal_fabric.flows.checkpoint import Checkpoint
    from temporal_fabric.flows.tables import Stamp

__all__ = ["SCHEMA_VERSION", "Pending", "RunFolder"]

SCHEMA_VERSION = 1
"""Of the manifest; the same as that of every other capsule."""

_TABLES = ("telemetry", "events")

_KEPT = 2
"""Checkpoints on disk: the last good one, and the one before while it is being written."""

Pending = tuple[list[dict[str, list[Any]]], list[dict[str, Any]]]
"""Rows by column, chunk by chunk, and events, that are not durable yet."""


class RunFolder:
    """A run's folder.

    Args:
        path: The folder; made where it is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._manifest: dict[str, Any] = {}

    def create(self, manifest: Mapping[str, Any]) -> None:
        """Begin a run.

        Raises:
            CapsuleError: There is one already.
        """
        if (self.path / MANIFEST).exists():
            raise CapsuleError(
                f"there is a run already [folder={self.path}]: resume it, or name another folder"
            )
        self.make_folders()
        self._manifest = {"schema_version": SCHEMA_VERSION, **manifest}
        self.describe({"status": "RUNNING"})

    def make_folders(self) -> None:
        """Make what is missing of its folders."""
        for name in ("checkpoints", SEGMENTS, "artifacts", "logs"):
            durable.make_folder(self.path / name)

    def manifest(self) -> dict[str, Any]:
        """Return the manifest on disk.

        Raises:
            CapsuleError: There is none, or it is of another version.
        """
        try:
            found = tomllib.loads((self.path / MANIFEST).read_text())
        except OSError as exc:
            raise CapsuleError(f"there is no run [folder={self.path}]: {exc.strerror}") from exc
        except ValueError as exc:
            raise CapsuleError(f"damaged manifest [folder={self.path}]: {exc}") from exc
        version = found.get("schema_version")
        if version != SCHEMA_VERSION:
            raise CapsuleError(
                f"unknown version of a run [found={version}, known={SCHEMA_VERSION}]:"
                " read it with the temporal-fabric that wrote it"
            )
        self._manifest = found
        return found

    def describe(self, more: Mapping[str, Any]) -> None:
        """Write more into the manifest, durably."""
        self._manifest = {**self._manifest, **more}
        durable.replace(self.path / MANIFEST, tomli_w.dumps(self._manifest).encode())

    def save(
        self,
        number: int,
        pending: Pending,
        made: Checkpoint,
        stamp: Stamp | None = None,
    ) -> dict[str, Any]:
        """Make rows, events and a checkpoint durable, then point to it; return the pointer.

        Args:
            number: Of the checkpoint within the run, from 1.
            pending: Everything since the checkpoint before.
            made: The checkpoint.
            stamp: Whose rows these are, where attempts of an experiment share the run.
        """
        self.segment(number, pending, stamp)
        written = checkpoint.write(self.path / "checkpoints" / f"{number:06d}.ckpt", made)
        pointer = {
            "number": number,
            "file": f"checkpoints/{written.file}",
            "size": written.size,
            "sha256": written.sha256,
            "iteration": int(made.meta["iteration"]),
        }
        self.describe({"checkpoint": pointer})
        for old in sorted((self.path / "checkpoints").glob("*.ckpt"))[:-_KEPT]:
            old.unlink()
        return pointer

    def last_good(self, dtype: str = "") -> tuple[int, Checkpoint] | None:
        """Return number and content of the checkpoint that the manifest points to.

        Raises:
            CapsuleError: It is gone or damaged, or of another dtype.
        """
        manifest = self.manifest()
        if dtype and manifest.get("dtype") != dtype:
            raise CapsuleError(
                f"the run is of another dtype [found={manifest.get('dtype')}, asked={dtype}]"
            )
        pointer = manifest.get("checkpoint")
        return None if pointer is None else (int(pointer["number"]), self.read(pointer))

    def read(self, pointer: Mapping[str, Any]) -> Checkpoint:
        """Return the checkpoint that a pointer names.

        Raises:
            CapsuleError: It is gone or damaged, or of another dtype than the run's.
        """
        dtype = str((self._manifest or self.manifest())["dtype"])
        return checkpoint.read(self.path / pointer["file"], sha256=pointer["sha256"], dtype=dtype)

    def forget_after(self, number: int) -> None:
        """Remove what was written after a checkpoint by a process that is dead."""
        for path in (self.path / SEGMENTS).glob("*.parquet"):
            if number_of(path) > number:
                path.unlink()

    def gather(self, number: int) -> None:
        """Make one segment of all up to a number that is saved; a long run has many."""
        for table in _TABLES:
            found = [one for one in parts(self.path, table) if number_of(one) <= number]
            whole = self.path / SEGMENTS / f"{table}-{number:06d}{WHOLE}.parquet"
            tables.gather(found, whole)
            for old in (self.path / SEGMENTS).glob(f"{table}-*.parquet"):
                if number_of(old) <= number and old != whole:
                    old.unlink()

    def log(self, line: str) -> None:
        """Append a line for a person."""
        with (self.path / "logs" / "run.log").open("a") as file:
            file.write(f"{now()} {line}\n")

    def seal(self, number: int, pending: Pending, experiment: Mapping[str, Any]) -> None:
        """Write the tables whole, then the manifest with every file's digest.

        Args:
            number: After the last checkpoint's.
            pending: What came after it.
            experiment: Identity and outcome, as every capsule has them.
        """
        self.segment(number, pending)
        segments = self.path / SEGMENTS
        for table in _TABLES:
            whole = self.path / f"{table}.parquet"
            tables.merge(table, parts(self.path, table), whole, self._manifest["dtype"])
        entries = [
            {"path": path.relative_to(self.path).as_posix(), "size": size, "sha256": digest}
            for path in self._files()
            for size, digest in [durable.hash_file(path)]
        ]
        self.describe(
            {
                "status": str(experiment["state"]),
                "experiment": {key: value for key, value in experiment.items() if value != ""},
                "files": entries,
                "sealed_at": now(),
            }
        )
        for path in segments.glob("*.parquet"):
            path.unlink()
        segments.rmdir()

    def put(self, name: str, data: bytes) -> None:
        """Write a file of the capsule, durably."""
        path = self.path / name
        durable.make_folder(path.parent)
        durable.replace(path, data)

    def put_json(self, name: str, value: Any) -> None:
        """Write a file of JSON, durably."""
        text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False)
        self.put(name, text.encode() + b"\n")

    def put_array(self, name: str, array: NDArray[Any]) -> None:
        """Write an array as .npy, durably."""
        data = io.BytesIO()
        np.save(data, array)
        self.put(name, data.getvalue())

    def drop_checkpoints(self) -> None:
        """Remove the checkpoints of a run that must not keep its data."""
        self._manifest.pop("checkpoint", None)
        self.describe({})
        for path in (self.path / "checkpoints").glob("*.ckpt"):
            path.unlink()

    def segment(self, number: int, pending: Pending, stamp: Stamp | None = None) -> None:
        """Make rows and events durable, in place of what has this number; see `save`."""
        rows, events = pending
        dtype = str(self._manifest["dtype"])
        for table, data in (
            ("telemetry", tables.telemetry(rows, dtype, stamp)),
            ("events", tables.events(events, dtype, stamp)),
        ):
            durable.replace(self.path / SEGMENTS / f"{table}-{number:06d}.parquet", data)

    def _files(self) -> Iterator[Path]:
        for path in sorted(self.path.rglob("*")):
            inner: Sequence[str] = path.relative_to(self.path).parts
            if path.is_file() and inner[0] != SEGMENTS and path.name != MANIFEST:
                yield path
