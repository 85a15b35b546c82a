"""Bringing along what lies on the submitting machine: the working folder and ``file://`` inputs.

They are named in the request by digest before it is submitted, so that it means the same thing
on every machine and at every time, and sent into the store, where workers find them.

``file:///path`` is a file of the submitting machine where it has such a file, else of the host
that runs the experiment; ``file://localhost/path`` is always the host's.
"""

from __future__ import annotations

import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from temporal_fabric import durable
from temporal_fabric.artifacts.ignoring import Ignored
from temporal_fabric.artifacts.trees import (
    FILE,
    LINK,
    PROGRAM,
    Leaf,
    TreeRefused,
    blob_key,
    check_link,
    check_path,
    listing,
    tree_digest,
    tree_key,
    tree_uri,
)
from temporal_fabric.errors import Problem, RequestRejected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from temporal_fabric.config import ArtifactsConfig
    from temporal_fabric.store import Objects

_AT_ONCE = 8
_MOST_PROBLEMS = 20
_LESS = "list what is not needed in .gitignore, or keep large data at an s3:// or https:// address"


@dataclass(slots=True)
class Packed:
    """What a request brings along."""

    body: dict[str, Any]
    """The request's body, with digests in place of folders and beside inputs."""

    contents: dict[str, Path | bytes] = field(default_factory=dict[str, "Path | bytes"])
    """What goes into the store, by digest."""

    at: str = ""
    """JSON pointer to the first thing that is brought along."""

    listings: dict[str, bytes] = field(default_factory=dict[str, bytes])
    """Listings of folders, by digest."""

    @property
    def empty(self) -> bool:
        """Whether nothing is to be sent."""
        return not self.contents and not self.listings


def pack(
    body: Mapping[str, Any],
    limits: ArtifactsConfig,
    objects: Objects | None,
    say: Callable[[str], None],
) -> Packed:
    """Find and hash what a request brings along; nothing is sent yet.

    Args:
        body: An admitted body, as `ExecutionRequest.to_body` gives it.
        limits: How much may be brought.
        objects: The store: what it has of the digests that the body states is not looked at
            again. None where it is out of reach.
        say: Told of the progress.

    Raises:
        RequestRejected: E_PATH, E_TOO_LARGE or E_INTEGRITY, every problem at once.
    """
    packing = _Packing(Packed(dict(body)), limits, objects, say)
    packing.workdir()
    for at, row in _inputs(packing.packed.body):
        packing.input(at, row)
    if packing.problems:
        raise RequestRejected(packing.problems[:_MOST_PROBLEMS])
    return packing.packed


def send(packed: Packed, objects: Objects, say: Callable[[str], None]) -> None:
    """Send what the store does not have yet; each listing after all that it lists.

    Raises:
        StoreError: the store is full or out of reach, or a file changed since it was hashed.
    """

    def put(number: int, sha256: str, content: Path | bytes) -> None:
        say(f"uploading {number} of {len(packed.contents)} files")
        if objects.piece(blob_key(sha256), 0, 0) is not None:
            return
        if isinstance(content, bytes):
            objects.replace(blob_key(sha256), content)
        else:
            objects.put_file(blob_key(sha256), content, sha256)

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        waiting = [
            threads.submit(put, number, sha256, content)
            for number, (sha256, content) in enumerate(packed.contents.items(), 1)
        ]
        try:
            for one in waiting:
                one.result()
        finally:
            threads.shutdown(cancel_futures=True)
    for sha256, data in packed.listings.items():
        objects.replace(tree_key(sha256), data)


class _Packing:
    """One request on its way into a `Packed`."""

    def __init__(
        self,
        packed: Packed,
        limits: ArtifactsConfig,
        objects: Objects | None,
        say: Callable[[str], None],
    ) -> None:
        self.packed = packed
        self.problems: list[Problem] = []
        self._limits = limits
        self._objects = objects
        self._say = say
        self._bytes = 0
        self._files = 0

    def workdir(self) -> None:
        """Put the digest of the working folder in its place."""
        given = self.packed.body.get("workdir")
        path = None if given is None or tree_digest(given) else _local(given)
        if path is None:
            return
        if not path.is_dir():
            self._problem("E_PATH", "/workdir", f"is not a folder of this machine: {path}")
            return
        self.packed.at = "/workdir"
        sha256 = self._folder(path.resolve(), "/workdir", links=True)
        self.packed.body["workdir"] = tree_uri(sha256)

    def input(self, at: str, row: dict[str, Any]) -> None:
        """Put the digest of an input beside its URI, if it is a file of this machine."""
        path = _client_file(row["source_uri"])
        given = str(row.get("sha256", "")).removeprefix("sha256:")
        if path is None or not path.exists() or self._stored(row["source_uri"], given):
            return
        path = path.resolve()
        self.packed.at = self.packed.at or at
        if path.is_dir():
            # The slash tells a folder from a file that holds such a listing.
            row["source_uri"] = row["source_uri"].rstrip("/") + "/"
            sha256 = self._folder(path, f"{at}/source_uri", links=False)
        else:
            sha256 = self._file(path, path.name, f"{at}/source_uri")
        if given and sha256 and given != sha256:
            what = f"is not what the file holds: {path}"
            self._problem("E_INTEGRITY", f"{at}/sha256", what, actual=sha256)
        row["sha256"] = f"sha256:{sha256}"

    def _stored(self, uri: str, given: str) -> bool:
        key = (tree_key if uri.endswith("/") else blob_key)(given)
        return bool(given and self._objects and self._objects.piece(key, 0, 0) is not None)

    def _folder(self, root: Path, at: str, *, links: bool) -> str:
        leaves: list[Leaf] = []
        rules = Ignored() if links else None
        for path, entry in _walk(root, "", rules):
            leaf = self._leaf(root, path, entry, at, links=links)
            if leaf is not None:
                leaves.append(leaf)
            if self._too_large(at):
                break
        data = listing(leaves)
        sha256 = hashlib.sha256(data).hexdigest()
        self.packed.listings[sha256] = data
        return sha256

    def _leaf(
        self, root: Path, path: str, entry: os.DirEntry[str], at: str, *, links: bool
    ) -> Leaf | None:
        try:
            check_path(path)
            if entry.is_symlink() and links:
                return self._link(path, Path(entry.path).readlink())
        except TreeRefused as exc:
            self._problem("E_PATH", at, f"holds {exc}; list it in .gitignore, or remove it")
            return None
        if not entry.is_file(follow_symlinks=False):
            what = f"holds what is neither file nor folder: {path}; remove it"
            self._problem("E_PATH", at, what)
            return None
        mode = entry.stat(follow_symlinks=False).st_mode
        sha256 = self._file(root / path, path, at)
        return Leaf(path, sha256, PROGRAM if links and mode & stat.S_IXUSR else FILE)

    def _link(self, path: str, target: Path) -> Leaf:
        check_link(path, str(target))
        content = os.fsencode(target)
        sha256 = hashlib.sha256(content).hexdigest()
        self.packed.contents[sha256] = content
        self._files += 1
        return Leaf(path, sha256, LINK)

    def _file(self, file: Path, name: str, at: str) -> str:
        self._say(f"reading {name}")
        try:
            # What is too large is not read to its end first.
            size = file.lstat().st_size
            if self._bytes + size > self._limits.upload_bytes:
                self._bytes += size
                self._too_large(at)
                return ""
            size, sha256 = durable.hash_file(file)
        except OSError as exc:
            self._problem("E_PATH", at, f"cannot be read: {file}: {exc.strerror}")
            return ""
        self._bytes += size
        self._files += 1
        self.packed.contents[sha256] = file
        return sha256

    def _too_large(self, at: str) -> bool:
        found = [
            (name, limit, actual)
            for name, limit, actual in (
                ("bytes", self._limits.upload_bytes, self._bytes),
                ("files", self._limits.upload_files, self._files),
            )
            if actual > limit
        ]
        for name, limit, actual in found:
            what = f"brings more than artifacts.upload_{name}={limit}; {_LESS}"
            if not any(problem.limit == limit for problem in self.problems):
                self._problem("E_TOO_LARGE", at, what, limit=limit, actual=actual)
        return bool(found)

    def _problem(self, code: str, path: str, message: str, **more: Any) -> None:
        self.problems.append(Problem(code, path, message, **more))


def _walk(root: Path, path: str, rules: Ignored | None) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield what lies below a folder and is not ignored, but for folders themselves."""
    folder = root / path
    if rules is not None:
        rules = rules.below(folder, path)
    for entry in sorted(os.scandir(folder), key=lambda item: item.name):
        inner = f"{path}/{entry.name}" if path else entry.name
        is_folder = entry.is_dir(follow_symlinks=False)
        if rules is not None and rules.hit(inner, folder=is_folder):
            continue
        if is_folder:
            yield from _walk(root, inner, rules)
        else:
            yield (inner, entry)


def _inputs(body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every input of a body with its JSON pointer; changing one changes the body."""
    kind = next(iter(body["payload"]))
    holders = {f"/payload/{kind}": body["payload"][kind], "/artifacts": body.get("artifacts", {})}
    for at, holder in holders.items():
        for place, row in enumerate(holder.get("inputs", ())):
            yield (f"{at}/inputs/{place}", row)


def _local(where: str) -> Path | None:
    """Return the local folder that a path or ``file://`` URI means, or None."""
    if "://" not in where:
        return Path(where).absolute()
    return _client_file(where)


def _client_file(uri: str) -> Path | None:
    parts = urlsplit(uri)
    is_ours = parts.scheme == "file" and not parts.netloc
    return Path(unquote(parts.path)) if is_ours else None
