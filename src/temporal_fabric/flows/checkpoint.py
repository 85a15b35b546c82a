"""Checkpoints: one file each, written whole or not at all, checked before anything is restored.

A file is a header of JSON and the arrays behind it, raw and aligned: it is written in one pass
at the speed of the disk, and read without a copy. Its digest stands in the manifest that points
to it. A second of work is not worth a second of saving, so `Saver` writes beside the run.
"""

from __future__ import annotations

import json
import re
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from temporal_fabric import durable
from temporal_fabric.errors import CapsuleError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

__all__ = [
    "RNG_KEY",
    "SCHEMA_VERSION",
    "Checkpoint",
    "Saver",
    "Written",
    "devices_of",
    "read",
    "write",
]

SCHEMA_VERSION = 1

RNG_KEY = "rng_key"
"""Name of the random key among the arrays."""

_MAGIC = b"fabricCP"
_SLOT = re.compile(r"\.z\['(\w+)'\]")
"""How JAX names the leaf of a slot within a carry."""

_ALIGNED = 64
_KINDS = frozenset("biufc")


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a run goes on from."""

    dtype: str
    """Of the flow: float32 or float64."""

    meta: Mapping[str, Any]
    """Plain data: the controller's state, seeds, references."""

    arrays: Mapping[str, NDArray[Any]]
    """By name; bit for bit."""

    @property
    def state(self) -> dict[str, NDArray[Any]]:
        """The slots of the flow's state."""
        found = ((_SLOT.fullmatch(name), array) for name, array in self.arrays.items())
        return {match[1]: array for match, array in found if match}


@dataclass(frozen=True)
class Written:
    """A file of a checkpoint, as the manifest names it."""

    file: str
    size: int
    sha256: str


def write(path: Path, checkpoint: Checkpoint) -> Written:
    """Write a checkpoint durably, replacing what was there.

    Raises:
        OSError: The disk is full or gone; no file was left, and an old one stays.
        ValueError: An array holds objects.
    """
    entries: list[dict[str, Any]] = []
    blocks: list[bytes | memoryview] = []
    offset = 0
    for name, array in checkpoint.arrays.items():
        if array.dtype.kind not in _KINDS:
            raise ValueError(f"only numbers can be kept [array={name}, dtype={array.dtype}]")
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        entries.append(
            {
                "name": name,
                "dtype": array.dtype.str,
                "shape": list(array.shape),
                "offset": offset,
                "size": len(data),
            }
        )
        blocks += [data, bytes(-len(data) % _ALIGNED)]
        offset += len(data) + len(blocks[-1])
    header = {
        "schema_version": SCHEMA_VERSION,
        "dtype": checkpoint.dtype,
        "meta": checkpoint.meta,
        "arrays": entries,
        "size": offset,
    }
    text = json.dumps(header, allow_nan=False).encode()
    text += b" " * (-(len(text) + 16) % _ALIGNED)
    parts = [_MAGIC, len(text).to_bytes(8, "little"), text, *blocks]
    size, sha256 = durable.replace_hashing(path, parts)
    return Written(path.name, size, sha256)


def read(path: Path, *, sha256: str = "", dtype: str = "") -> Checkpoint:
    """Read a checkpoint.

    Args:
        path: The file.
        sha256: Digest that it must have; empty: not looked at.
        dtype: Dtype that the flow must have; empty: any.

    Raises:
        CapsuleError: It is gone, damaged, of another version, or of another dtype. Nothing of
            it was used.
    """
    try:
        if sha256 and durable.hash_file(path)[1] != sha256:
            raise CapsuleError(f"the checkpoint is not what was written [file={path}]")
        data = path.read_bytes()
    except OSError as exc:
        raise CapsuleError(f"the checkpoint cannot be read [file={path}]: {exc}") from exc
    try:
        length = int.from_bytes(data[8:16], "little")
        header: dict[str, Any] = json.loads(data[16 : 16 + length])
        version, found = header["schema_version"], str(header["dtype"])
    except (ValueError, KeyError, TypeError) as exc:
        raise CapsuleError(f"this is no checkpoint [file={path}]: {exc}") from exc
    if data[:8] != _MAGIC or version != SCHEMA_VERSION:
        raise CapsuleError(
            f"unknown version of a checkpoint [found={version}, known={SCHEMA_VERSION},"
            f" file={path}]: read it with the temporal-fabric that wrote it"
        )
    if dtype and found != dtype:
        raise CapsuleError(
            f"the checkpoint is of another dtype [found={found}, asked={dtype}, file={path}]:"
            " a flow goes on in the dtype that it began in"
        )
    try:
        arrays = _arrays(data, 16 + length, header)
    except (ValueError, KeyError, TypeError) as exc:
        raise CapsuleError(f"a damaged checkpoint [file={path}]: {exc}") from exc
    return Checkpoint(found, header["meta"], arrays)


def devices_of(checkpoint: Checkpoint) -> int:
    """Return on how many devices the run was when a checkpoint was made."""
    return int(checkpoint.meta.get("devices", 1))


def _arrays(data: bytes, base: int, header: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    if len(data) != base + int(header["size"]):
        raise ValueError("it was cut off")
    return {one["name"]: _array(data, base, one) for one in header["arrays"]}


def _array(data: bytes, base: int, entry: Mapping[str, Any]) -> NDArray[Any]:
    dtype, start, size = np.dtype(entry["dtype"]), base + entry["offset"], entry["size"]
    if dtype.kind not in _KINDS:
        raise ValueError(f"array {entry['name']} holds no numbers")
    flat: NDArray[Any] = np.frombuffer(data, dtype, size // dtype.itemsize, start)
    return flat.reshape(entry["shape"])


class Saver:
    """Writes beside the run, one at a time and in order; what fails is raised to the run."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._last: Future[object] | None = None

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: object, _trace: TracebackType | None
    ) -> None:
        """Wait for the last write; its failure is raised unless another error is under way."""
        try:
            if kind is None:
                self.wait()
        finally:
            self._pool.shutdown(wait=True)

    def submit(self, work: Callable[[], object]) -> None:
        """Begin a write after the one before has ended.

        Raises:
            OSError: The one before has failed.
        """
        self.wait()
        self._last = self._pool.submit(work)

    def wait(self) -> None:
        """Wait until everything submitted is durable.

        Raises:
            OSError: It is not.
        """
        last, self._last = self._last, None
        if last is not None:
            last.result()
