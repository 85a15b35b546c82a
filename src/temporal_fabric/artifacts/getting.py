"""Copying outputs out of a capsule, verified on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from temporal_fabric import durable
from temporal_fabric.errors import CapsuleError, StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from temporal_fabric.capsule.manifest import Entry
    from temporal_fabric.capsule.reading import Capsule

_ARTIFACTS = "artifacts/"


def get_outputs(capsule: Capsule, to: Path, output: str | None = None) -> list[Path]:
    """Copy outputs into a folder; a file appears there whole, and only with the right content.

    Args:
        capsule: Where from.
        to: The folder; created where it is missing. Files of the same name are replaced.
        output: Name of one output; all of them by default.

    Returns:
        The files that were written.

    Raises:
        CapsuleError: no such output, content that the manifest does not list, or a target
            that cannot be written.
    """
    if output is None:
        rows = [(e.path, e) for e in capsule.manifest.files if e.path.startswith(_ARTIFACTS)]
        wanted = [(path.removeprefix(_ARTIFACTS), entry) for path, entry in rows]
    else:
        last = capsule.output_path(output).rpartition("/")[2]
        wanted = [
            (f"{last}/{name}".rstrip("/"), entry) for name, entry in capsule.output_files(output)
        ]
    return [_copy(capsule, entry, to / name) for name, entry in wanted]


def _copy(capsule: Capsule, entry: Entry, target: Path) -> Path:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        durable.write_hashed(capsule.objects.chunks(entry.path), target, entry.sha256)
    except StoreError as exc:
        raise CapsuleError(f"{entry.path}: nothing copied: {exc}") from exc
    except OSError as exc:
        raise CapsuleError(f"cannot copy {entry.path} to {target}: {exc.strerror}") from exc
    return target
