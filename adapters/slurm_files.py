"""Copying folders and growing files to a site and back.

Every file appears under its name only whole; what a lost connection has cut short goes on where
it stopped. Logs are carried while they grow. Blocking, and safe to be repeated or raced: all
writers of one attempt on this host take turns.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from temporal_fabric.adapters.slurm_transport import GROWS
from temporal_fabric.errors import BackendUnknown, PermanentBackendError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

    from temporal_fabric.adapters.slurm_transport import Files, RemoteFile, Status

_PART = ".fabric-part"
_CHUNK = 1 << 15
_LOCK = ".carrying"
_PARTS = ".parts"
_MANY = 16
"""Chunks asked for ahead: a window of half a mebibyte."""

Digest = Callable[[str, int], str]
"""Path on the cluster and a count of bytes, to a SHA-256."""

Entry = tuple[str, str, int, int]
"""Path below the root, ``file``, ``folder`` or ``other``, bytes, nanoseconds of its change."""


def send_tree(client: Files, here: Path, there: str, digest: Digest) -> None:
    """Copy a folder to the cluster; what lies there whole already is left alone.

    Args:
        client: A session.
        here: The folder.
        there: Where it goes; exists.
        digest: Says what the first bytes of a file there are, without bringing them here.

    Raises:
        PermanentBackendError: something in it is neither file, folder nor relative link.
        OSError: the cluster refuses a file.
    """
    for path in sorted(here.rglob("*")):
        target = str(PurePosixPath(there, path.relative_to(here)))
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            _send_link(client, path, target)
        elif stat.S_ISDIR(mode):
            with contextlib.suppress(OSError):  # it is there, or the first file says why not
                client.mkdir(target, 0o700)
        elif stat.S_ISREG(mode):
            _send_file(client, path, target, digest)
        else:
            raise PermanentBackendError(f"neither a file nor a folder: {path.name}")


def _send_link(client: Files, path: Path, target: str) -> None:
    to = path.readlink()
    if to.is_absolute():
        raise PermanentBackendError(
            f"a link to {to} means nothing on the cluster [link={path.name}]: bring the file itself"
        )
    if _stat(client, target) is None:
        client.symlink(str(to), target)


def _send_file(client: Files, path: Path, target: str, digest: Digest) -> None:
    size, part = path.stat().st_size, target + _PART
    found = _stat(client, target)
    if found is not None and found.st_size == size:
        return
    begun = _stat(client, part)
    done = (begun.st_size or 0) if begun is not None else 0
    with path.open("rb") as file:
        # What lies there may be of an older file.
        if done > size or (done and digest(part, done) != _beginning(file, done)):
            done = 0
        with client.open(part, "r+" if done else "w") as remote:
            remote.set_pipelined(True)
            remote.seek(done)
            file.seek(done)
            while chunk := file.read(_CHUNK):
                remote.write(chunk)
        client.chmod(part, path.stat().st_mode & 0o700)
    if client.stat(part).st_size != size:
        raise BackendUnknown(f"a file has arrived in part [file={path.name}]")
    client.posix_rename(part, target)


def _beginning(file: IO[bytes], count: int) -> str:
    """Return the digest of a file's first bytes."""
    digest = hashlib.sha256()
    for place in range(0, count, _CHUNK):
        digest.update(os.pread(file.fileno(), min(_CHUNK, count - place), place))
    return digest.hexdigest()


def fetch_growth(client: Files, there: str, folder: Path, sizes: Mapping[str, int]) -> None:
    """Carry over what has been added to logs and telemetry.

    Args:
        client: A session.
        there: The attempt's folder on the cluster.
        folder: Its folder on this host.
        sizes: How long the files are there.
    """
    with _turn(folder):
        for name in GROWS:
            size = sizes.get(name)
            if size is None or not grown(folder, {name: size}):
                continue
            remote_name = f"{there}/{name}"
            with (folder / name).open("ab") as file, client.open(remote_name, "rb") as remote:
                for piece in _pieces(remote, file.tell(), size):
                    file.write(piece)


def grown(folder: Path, sizes: Mapping[str, int]) -> bool:
    """Say whether a file is longer there than here, or not here at all."""
    for name, size in sizes.items():
        try:
            if (folder / name).stat().st_size < size:
                return True
        except FileNotFoundError:
            return True
    return False


def fetch_tree(client: Files, there: str, here: Path, entries: Sequence[Entry]) -> None:
    """Copy a folder from the cluster as it was listed; what is here whole already is left alone.

    What is neither file nor folder becomes a link to nothing: whoever collects refuses it, as
    they would have done there.

    Raises:
        BackendUnknown: a name leads out of the folder, or a file arrived in part.
    """
    with _turn(here.parent):
        for entry in _checked(entries):
            path, kind, _, _ = entry
            target = here / path
            if kind == "folder":
                target.mkdir(mode=0o700, parents=True, exist_ok=True)
            elif kind == "file":
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                _fetch_file(client, there, here, entry)
            elif not target.is_symlink():
                target.symlink_to("nothing-that-can-be-kept")


def _checked(entries: Sequence[Entry]) -> Iterator[Entry]:
    for entry in entries:
        parts = PurePosixPath(entry[0]).parts
        if not parts or entry[0].startswith("/") or ".." in parts or "\0" in entry[0]:
            raise BackendUnknown(f"the login node lists an odd name: {entry[0]!r}")
        yield entry


def _fetch_file(client: Files, root: str, here: Path, entry: Entry) -> None:
    path, _, size, changed = entry
    there, target, parts = f"{root}/{path}", here / path, here.parent / _PARTS
    with contextlib.suppress(FileNotFoundError):
        found = target.stat()
        if found.st_size == size and found.st_mtime_ns == changed:
            return
    # With the time of change in its name, a part is never continued from another content.
    name = hashlib.sha256(f"{there}\n{changed}".encode(errors="surrogateescape")).hexdigest()
    parts.mkdir(mode=0o700, exist_ok=True)
    part = parts / name
    with part.open("ab") as file, client.open(there, "rb") as remote:
        for piece in _pieces(remote, file.tell(), size):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    if part.stat().st_size != size:
        part.unlink()
        raise BackendUnknown(f"a file has arrived in part, or still changes [file={there}]")
    os.utime(part, ns=(changed, changed))
    part.replace(target)


def _pieces(remote: RemoteFile, start: int, end: int) -> Iterator[bytes]:
    """Yield what stands between two places, some pieces asked for ahead."""
    for window in range(start, end, _CHUNK * _MANY):
        until = min(end, window + _CHUNK * _MANY)
        wanted = [(at, min(_CHUNK, until - at)) for at in range(window, until, _CHUNK)]
        yield from remote.readv(wanted)


def _stat(client: Files, path: str) -> Status | None:
    try:
        return client.lstat(path)
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _turn(folder: Path) -> Generator[None]:
    """Let one writer at a time into an attempt's folder."""
    with (folder / _LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
