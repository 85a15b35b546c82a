"""Cached binaries: one folder per program and content of its pins, verified before use."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from platformdirs import user_cache_dir

from temporal_fabric.devserver.steps import StepFailed

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

CACHE_ENV = "FABRIC_CACHE_DIR"
TOOLCHAIN_FILE = "go-toolchain.txt"

_VERSION_SYMBOL = "github.com/temporalio/cli/internal/temporalcli.Version"
_MACHINES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
_SYSTEMS = {"linux": "linux", "darwin": "darwin", "win32": "windows"}
_WAIT_S = 0.25
_LEFTOVER_AFTER_S = 24 * 3600


def cache_root() -> Path:
    """Return the folder of everything that can be fetched or built again."""
    return Path(os.environ.get(CACHE_ENV) or user_cache_dir("temporal-fabric")).absolute()


@dataclass(frozen=True)
class Program:
    """A program of the pinned Go modules."""

    name: str
    package: str
    title: str
    """What people are told is being built."""


CLI = Program("temporal", "github.com/temporalio/cli/cmd/temporal", "the embedded server")
SERVER = Program("temporal-server", "go.temporal.io/server/cmd/server", "the Temporal server")
SQL_TOOL = Program(
    "temporal-sql-tool", "go.temporal.io/server/cmd/tools/sql", "the Temporal server's schema tool"
)


@dataclass(frozen=True)
class Pins:
    """What the programs are built from, read from the package."""

    go_mod: bytes
    go_sum: bytes
    toolchain: bytes
    cli_version: str
    go_version: tuple[int, ...]

    @classmethod
    def load(cls) -> Pins:
        """Read the pinned modules that ship with the package."""
        folder = files("temporal_fabric.devserver") / "go"
        go_mod = (folder / "go.mod").read_bytes()
        text = go_mod.decode()
        go = re.search(r"^go (\d+(?:\.\d+)*)$", text, re.MULTILINE)
        cli = re.search(r"^\s*(?:require )?github\.com/temporalio/cli v(\S+)", text, re.MULTILINE)
        if go is None or cli is None:
            raise ValueError("the packaged go.mod names no Go version or no temporal CLI")
        return cls(
            go_mod=go_mod,
            go_sum=(folder / "go.sum").read_bytes(),
            toolchain=(folder / TOOLCHAIN_FILE).read_bytes(),
            cli_version=cli[1],
            go_version=tuple(int(part) for part in go[1].split(".")),
        )

    @property
    def flags(self) -> tuple[str, ...]:
        """Flags of ``go build``: reproducible, stripped, and with a version to report."""
        link = f"-s -w -X {_VERSION_SYMBOL}={self.cli_version}"
        return ("-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags", link)


def go_platform() -> tuple[str, str]:
    """Return GOOS and GOARCH of this machine.

    Raises:
        StepFailed: the server was never built for such a machine.
    """
    system = _SYSTEMS.get(sys.platform)
    machine = _MACHINES.get(platform.machine().lower())
    if system is None or machine is None:
        raise StepFailed(f"no known build for {sys.platform} on {platform.machine()}")
    return system, machine


@dataclass(frozen=True)
class CacheEntry:
    """The place of one binary in the cache; two entries never share a file."""

    folder: Path
    program: Program = CLI

    @classmethod
    def of(cls, pins: Pins, program: Program = CLI) -> CacheEntry:
        """Return the entry of a program that belongs to these pins on this machine."""
        digest = hashlib.sha256()
        words = _encoded((program.package, *pins.flags, *go_platform()))
        for part in (pins.go_mod, pins.go_sum, *words):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
        return cls(cache_root() / "server" / digest.hexdigest()[:16], program)

    @property
    def binary(self) -> Path:
        """Path of the executable, whether it exists or not."""
        suffix = ".exe" if sys.platform == "win32" else ""
        return self.folder / f"{self.program.name}{suffix}"

    @property
    def record(self) -> Path:
        """Path of what is known about the executable."""
        return self.folder / f"{self.program.name}.json"

    @property
    def lock(self) -> Path:
        """Path of the lock that lets one process fetch or build at a time."""
        return self.folder.with_suffix(".lock")

    def verified(self) -> Path | None:
        """Return the binary if it is the one that was recorded, else None.

        Size and time are compared first; only a difference (a copied cache, a damaged
        file) costs reading the whole binary.
        """
        try:
            record = cast("dict[str, Any]", json.loads(self.record.read_text(encoding="utf-8")))
            stat = self.binary.stat()
            if [stat.st_size, stat.st_mtime_ns] == [record["size"], record["mtime_ns"]]:
                return self.binary
            if _sha256(self.binary) != record["sha256"]:
                return None
            self._write_record(str(record["sha256"]), str(record["origin"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return self.binary

    def admit(self, binary: Path, origin: str) -> Path:
        """Move a finished binary into the cache in one step and record it."""
        digest = _sha256(binary)
        binary.chmod(0o755)
        self.folder.mkdir(parents=True, exist_ok=True)
        # Without a record there is no entry: a crash between the moves leaves none.
        self.record.unlink(missing_ok=True)
        binary.replace(self.binary)
        self._write_record(digest, origin)
        return self.binary

    def _write_record(self, digest: str, origin: str) -> None:
        stat = self.binary.stat()
        record = {
            "sha256": digest,
            "size": stat.st_size,
            "mtime_ns": stat.st_mtime_ns,
            "origin": origin,
        }
        write_atomically(self.record, json.dumps(record, indent=1))


@contextmanager
def scratch_folder(entry: CacheEntry) -> Generator[Path]:
    """Give an empty folder on the file system of the cache, gone afterwards.

    Call it under the entry's lock: it also clears what killed builds left behind.
    """
    parent = entry.folder.parent
    parent.mkdir(parents=True, exist_ok=True)
    for old in parent.glob(".tmp-*"):
        if time.time() - old.stat().st_mtime > _LEFTOVER_AFTER_S:
            shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=".tmp-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def exclusive(path: Path, waiting: Callable[[float], None]) -> Generator[None]:
    """Hold a file lock; while another has it, `waiting` hears the seconds, first exactly 0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":
        yield
        return
    with path.open("a") as handle:
        began: float | None = None
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                now = time.monotonic()
                began = now if began is None else began
                waiting(now - began)
                time.sleep(_WAIT_S)
        yield


def write_atomically(path: Path, text: str) -> None:
    """Write a small file so that a reader sees the old or the new one, never a part."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _encoded(parts: tuple[str, ...]) -> Iterator[bytes]:
    return (part.encode() for part in parts)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
