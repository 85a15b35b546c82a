"""Bringing the working folder that came with a request into an attempt's task folder.

Everything is written elsewhere first, file after file as the listing names them, and verified.
Links are made last, so that nothing is ever written through one. Then one rename puts the folder
in its place: a payload sees all of it.
"""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from temporal_fabric import durable
from temporal_fabric.artifacts.trees import (
    LINK,
    PROGRAM,
    Leaf,
    TreeRefused,
    blob_key,
    check_link,
    read_listing,
    tree_digest,
    tree_key,
)
from temporal_fabric.errors import (
    ArtifactFailed,
    ContentDiffers,
    Problem,
    StoreError,
    TransientBackendError,
)
from temporal_fabric.states import Reason

if TYPE_CHECKING:
    from pathlib import Path

    from temporal_fabric.artifacts.transfer import Transfer
    from temporal_fabric.requests.models import ExecutionRequest
    from temporal_fabric.store import Objects

_AT_ONCE = 8


def absent_workdir(request: ExecutionRequest, objects: Objects) -> Problem | None:
    """Say what is wrong where a request's working folder is not in the store.

    Raises:
        StoreError: the store does not answer.
    """
    if request.workdir is None:
        return None
    sha256 = tree_digest(request.workdir)
    if sha256 is None:
        message = (
            "was not uploaded: start it with 'temporal-fabric submit' or Fabric.submit on the "
            "machine that has the folder, or remove it"
        )
        return Problem("E_PATH", "/workdir", message, actual=request.workdir[:80])
    if objects.piece(tree_key(sha256), 0, 0) is None:
        message = (
            f"is not in this worker's store ({objects.root}): give client and workers one "
            "'store' (fabric.toml or FABRIC_STORE) and submit again"
        )
        return Problem("E_DATA", "/workdir", message, actual=request.workdir)
    return None


def read_tree(objects: Objects, sha256: str, uri: str) -> list[Leaf]:
    """Return the files of a folder in the store.

    Raises:
        ArtifactFailed: it is not there, or holds what must not be written.
        TransientBackendError: the store does not answer.
    """
    try:
        data = objects.read(tree_key(sha256))
    except StoreError as exc:
        raise TransientBackendError(str(exc)) from exc
    if data is None:
        raise ArtifactFailed(f"not in the store: {uri}: use one 'store' for client and workers")
    try:
        return read_listing(data, sha256)
    except TreeRefused as exc:
        raise ArtifactFailed(f"E_ARCHIVE: {uri}: {exc}", reason=Reason.INTEGRITY) from exc


def unpack(objects: Objects, uri: str, target: Path, *, aside: Path, transfer: Transfer) -> int:
    """Put a folder of the store in the place of an empty folder; return its bytes.

    Repeating it after any crash changes nothing that is whole.

    Args:
        objects: The store.
        uri: The folder, with its digest.
        target: The empty folder; where it is not empty any more, an earlier call filled it.
        aside: A free name beside it.
        transfer: The limits of this attempt.

    Raises:
        ArtifactFailed: INTEGRITY where a content is not what its digest says, E_ARCHIVE where
            the listing holds what must not be written.
        TransientBackendError: the store does not answer.
    """
    leaves = read_tree(objects, tree_digest(uri) or "", uri)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True, mode=0o700)

    def bring(leaf: Leaf) -> int:
        try:
            return _write(objects, leaf, aside / leaf.path, transfer)
        except ContentDiffers as exc:
            message = f"{uri}: {leaf.path}: {exc}"
            raise ArtifactFailed(message, reason=Reason.INTEGRITY) from exc
        except StoreError as exc:
            raise TransientBackendError(f"{uri}: {leaf.path}: {exc}") from exc

    try:
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            files = [leaf for leaf in leaves if leaf.flag != LINK]
            size = sum(threads.map(bring, files))
        for leaf in leaves:
            if leaf.flag == LINK:
                _link(objects, leaf, aside / leaf.path)
    except (OSError, TreeRefused) as exc:
        raise ArtifactFailed(f"E_ARCHIVE: {uri}: {exc}") from exc
    try:
        aside.rename(target)
    except OSError:
        if not any(target.iterdir()):
            raise
        shutil.rmtree(aside)
    durable.sync_folder(target.parent)
    return size


def _write(objects: Objects, leaf: Leaf, path: Path, transfer: Transfer) -> int:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    content = transfer.counted(objects.chunks(blob_key(leaf.sha256)))
    size, _ = durable.write_hashed(content, path, leaf.sha256)
    path.chmod(0o700 if leaf.flag == PROGRAM else 0o600)
    return size


def _link(objects: Objects, leaf: Leaf, path: Path) -> None:
    try:
        data = objects.read(blob_key(leaf.sha256))
    except StoreError as exc:
        raise TransientBackendError(str(exc)) from exc
    target = os.fsdecode(data or b"")
    check_link(leaf.path, target)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.symlink_to(target)
