"""The host-local working folder of a live experiment, and what a payload sees of it.

::

    runs/<tenant>/<id>/checkpoints/       shared by all epochs: a retry finds its checkpoint
    runs/<tenant>/<id>/<epoch>/task/      current folder of the payload
    runs/<tenant>/<id>/<epoch>/input/     staged inputs
    runs/<tenant>/<id>/<epoch>/output/    what the payload wants kept
    runs/<tenant>/<id>/<epoch>/stdout.log, stderr.log, error.txt, telemetry.jsonl

Everything here is lost with the host; the capsule in the store is what stays.
"""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from temporal_fabric import durable
from temporal_fabric.outcomes import OutputFile
from temporal_fabric.states import Reason

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from temporal_fabric.requests.models import ExecutionRequest

EXCERPT_BYTES = 2048
"""How much of standard error goes into a failure: history keeps at most 4 KiB of it."""


class OutputRefused(Exception):
    """An output cannot be kept; the message says which and why."""

    reason: Reason = Reason.OUTPUT_MISSING


class OutputTooLarge(OutputRefused):
    """The outputs are larger than the request's limit."""

    reason = Reason.BUDGET


@dataclass(frozen=True, slots=True)
class Workplace:
    """The folders of one attempt."""

    root: Path
    """``runs/<tenant>/<id>``."""

    epoch: int

    @classmethod
    def of(cls, runs: Path, tenant: str, request_id: str, epoch: int) -> Workplace:
        """Return the place of one attempt; nothing is created."""
        return cls(runs / tenant / request_id, epoch)

    @property
    def folder(self) -> Path:
        """Everything of this epoch."""
        return self.root / str(self.epoch)

    @property
    def checkpoints(self) -> Path:
        """Checkpoints, shared by all epochs."""
        return self.root / "checkpoints"

    @property
    def output(self) -> Path:
        """What the payload wants kept."""
        return self.folder / "output"

    @property
    def input(self) -> Path:
        """Staged inputs."""
        return self.folder / "input"

    @property
    def stdout(self) -> Path:
        """The payload's standard output."""
        return self.folder / "stdout.log"

    @property
    def stderr(self) -> Path:
        """The payload's standard error."""
        return self.folder / "stderr.log"

    def create(self) -> None:
        """Create the folders, private to this user; repeating it changes nothing."""
        for path in (self.checkpoints, self.folder / "task", self.folder / "input", self.output):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)

    def variables(self, *, tenant: str, request_id: str, number: int) -> dict[str, str]:
        """Return the ``FABRIC_...`` variables of the payload."""
        return {
            "FABRIC_TENANT": tenant,
            "FABRIC_REQUEST_ID": request_id,
            "FABRIC_ATTEMPT": str(number),
            "FABRIC_EPOCH": str(self.epoch),
            "FABRIC_TASK_DIR": str(self.folder / "task"),
            "FABRIC_INPUT_DIR": str(self.folder / "input"),
            "FABRIC_OUTPUT_DIR": str(self.output),
            "FABRIC_CHECKPOINT_DIR": str(self.checkpoints),
            "FABRIC_ERROR_FILE": str(self.folder / "error.txt"),
            "FABRIC_TELEMETRY": str(self.folder / "telemetry.jsonl"),
        }

    def excerpt(self) -> str:
        """Return the end of the error file or of standard error, control characters escaped."""
        for path in (self.folder / "error.txt", self.stderr):
            text = _tail(path, EXCERPT_BYTES)
            if text:
                return text
        return ""

    def collect(
        self, declared: tuple[str, ...], limit_bytes: int | None = None
    ) -> list[OutputFile]:
        """Hash every regular file under the output folder.

        Args:
            declared: Paths relative to the output folder that must exist.
            limit_bytes: What all files together may take; None means no limit.

        Raises:
            OutputTooLarge: the files take more than ``limit_bytes``.
            OutputRefused: a declared output is missing, or something there is neither a
                file nor a folder. A link could point at any file of the host.
        """
        files = list(_files(self.output))
        total = sum(path.lstat().st_size for path in files)
        if limit_bytes is not None and total > limit_bytes:
            raise OutputTooLarge(
                f"the outputs take {total} bytes, limits.output_bytes is {limit_bytes}"
            )
        found = [_hashed(self.output, path) for path in files]
        present = {output.path for output in found}
        missing = [
            path
            for path in declared
            if path not in present and not any(name.startswith(f"{path}/") for name in present)
        ]
        if missing:
            raise OutputRefused(
                f"declared output missing: {', '.join(missing)}; write it below $FABRIC_OUTPUT_DIR"
            )
        return found

    def remove(self, kept: Collection[int] = ()) -> None:
        """Remove the experiment's folders from this host.

        Args:
            kept: Epochs of another run; their folders stay, and the checkpoints with them.
        """
        stays = {*map(str, kept), *([self.checkpoints.name] if kept else [])}
        with suppress(OSError):
            found = [path for path in self.root.iterdir() if path.name not in stays]
            for path in found:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
            self.root.rmdir()  # not where another run has just begun in it


def input_path(mount_path: str) -> str | None:
    """Map a request's ``mount_path`` to a path below the input folder; None for any other.

    ``/input/x`` and ``x`` both mean ``$FABRIC_INPUT_DIR/x``.
    """
    return _below(mount_path.removeprefix("/input/"))


def output_path(source_path: str) -> str | None:
    """Map a request's ``source_path`` to a path below the output folder.

    ``/output/x`` and ``x`` both mean ``$FABRIC_OUTPUT_DIR/x``, so that one request runs in a
    container and as a process. Other absolute paths have no meaning here: None.
    """
    return _below(source_path.removeprefix("/output/"))


def declared_outputs(request: ExecutionRequest) -> tuple[str, ...]:
    """Return the paths below the output folder that a request declares."""
    paths = (output_path(item.source_path) for item in request.outputs.values())
    return tuple(path for path in paths if path is not None)


def _below(path: str) -> str | None:
    if path.startswith("/") or ".." in Path(path).parts or not Path(path).parts:
        return None
    return str(Path(path))


def _files(folder: Path) -> Iterator[Path]:
    for entry in sorted(os.scandir(folder), key=lambda item: item.name):
        mode = entry.stat(follow_symlinks=False).st_mode
        path = Path(entry.path)
        if stat.S_ISDIR(mode):
            yield from _files(path)
        elif stat.S_ISREG(mode):
            yield path
        else:
            raise OutputRefused(f"output is not a regular file: {path.name}; copy the content")


def _hashed(folder: Path, path: Path) -> OutputFile:
    size, digest = durable.hash_file(path)
    return OutputFile(path=str(path.relative_to(folder)), size=size, sha256=digest)


def _tail(path: Path, count: int) -> str:
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - count))
            text = file.read(count).decode(errors="replace").strip()
    except OSError:
        return ""
    return "".join(
        char if char.isprintable() or char in "\n\t" else f"\\x{ord(char):02x}" for char in text
    )
