"""Unpack an archive by rules of our own: files, folders, and links that stay inside.

A plain script of the standard library, started as ``python -I -S unpack.py ARCHIVE FOLDER
MAX_BYTES``, so that whatever an archive does to it can be killed. It writes what it has done
to standard output, last ``sha256 HEX`` of the archive it read.

The archive is read once, from front to back. Regular files and folders are made first, each
below folders made here; links are made after the last of them, and are then resolved: no name
is ever written through a link. Of entries with the same name the last counts: conda-pack writes
two where two packages have the same file, and for ``bin/activate`` where conda is packed, too.
"""

from __future__ import annotations

import hashlib
import io
import os
import resource
import sys
import tarfile
from pathlib import Path

MAX_ENTRIES = 2_000_000
MAX_RATIO = 200
_FREE_BYTES = 64 << 20
"""Below this size an archive may be as dense as it likes."""

_MEMORY = 1 << 30
_CHUNK = 1 << 20
_TOLD_EVERY = 2000


class Refused(Exception):
    """The archive holds what is not unpacked; the message says what."""


class _Hashed(io.FileIO):
    """A file that is read once, counted and hashed."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.digest = hashlib.sha256()
        self.count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size) or b""
        self.digest.update(data)
        self.count += len(data)
        return data


class Unpacking:
    """One archive on its way into one folder.

    Args:
        folder: Where to; must not exist.
        max_bytes: Of all files together.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kinds: dict[str, str] = {"": "folder"}
        self._links: dict[str, tuple[str, bool]] = {}
        self._hard_targets: set[str] = set()
        folder.mkdir(0o700)

    def run(self, path: Path) -> str:
        """Unpack and return the archive's sha256.

        Raises:
            Refused: it breaks a rule.
            tarfile.TarError: it is no archive, or is cut off.
        """
        with _Hashed(path) as read:
            with tarfile.open(fileobj=read, mode="r|*") as archive:
                for count, member in enumerate(archive, 1):
                    self._take(archive, member)
                    dense = self._bytes > MAX_RATIO * max(read.count, 1)
                    if self._bytes > _FREE_BYTES and dense:
                        raise Refused(f"more than {MAX_RATIO} bytes from each of the archive")
                    if count > MAX_ENTRIES:
                        raise Refused(f"more than {MAX_ENTRIES} entries")
                    if count % _TOLD_EVERY == 0:
                        self._tell(count)
            while read.read(_CHUNK):  # what stands behind the end belongs to the digest
                continue
        self._make_links()
        self._tell(len(self._kinds) - 1)
        return read.digest.hexdigest()

    def _tell(self, count: int) -> None:
        _say(f"unpacked {count} entries, {self._bytes} bytes")

    def _take(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        name = _plain(member.name)
        if not name and member.isdir():
            return
        if name in self._kinds and not member.isdir():
            self._forget(name)
        self._make_folders(name.rpartition("/")[0])
        if member.isdir():
            self._make_folders(name)
        elif member.isreg():
            self._bytes += member.size
            if self._bytes > self._max_bytes:
                raise Refused(f"larger than {self._max_bytes} bytes")
            self._write(archive, member, name)
        elif member.issym() or member.islnk():
            self._links[name] = (member.linkname, member.issym())
            self._kinds[name] = "link"
            if member.islnk():
                self._hard_targets.add(_plain(member.linkname))
        else:
            raise Refused(f"neither file, folder nor link: {name!r}")

    def _forget(self, name: str) -> None:
        """Undo an entry for which another one comes."""
        kind = self._kinds[name]
        # What a hard link names is the content at its place in the archive, not a later one.
        if kind == "folder" or name in self._hard_targets:
            raise Refused(f"named twice: {name!r}")
        if kind == "link":
            del self._links[name]
        else:
            (self._folder / name).unlink()
        del self._kinds[name]

    def _make_folders(self, name: str) -> None:
        done = ""
        for part in name.split("/") if name else ():
            done = f"{done}/{part}" if done else part
            if done not in self._kinds:
                (self._folder / done).mkdir(0o755)
                self._kinds[done] = "folder"
            elif self._kinds[done] != "folder":
                raise Refused(f"below something that is no folder: {name!r}")

    def _write(self, archive: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> None:
        source, path = archive.extractfile(member), self._folder / name
        if source is None:
            raise Refused(f"no content: {name!r}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with open(os.open(path, flags, 0o600), "wb") as target:  # noqa: PTH123 - a descriptor
            while chunk := source.read(_CHUNK):
                target.write(chunk)
            os.fchmod(target.fileno(), 0o600 | (member.mode & 0o755))
        # Compiled modules name the time of their source.
        os.utime(path, (member.mtime, member.mtime))
        self._kinds[name] = "file"

    def _make_links(self) -> None:
        root = self._folder.resolve()
        for name, (target, symbolic) in self._links.items():
            path = self._folder / name
            if symbolic:
                if not target or target.startswith("/") or "\0" in target:
                    raise Refused(f"a link to a place outside: {name!r} -> {target!r}")
                path.symlink_to(target)
            elif self._kinds.get(_plain(target)) == "file":
                os.link(self._folder / _plain(target), path, follow_symlinks=False)
            else:
                raise Refused(f"a hard link to what is no file: {name!r} -> {target!r}")
        # Only now, with all of them made, is known where each leads.
        for name, (target, symbolic) in self._links.items():
            # Not resolve(): a link to itself is odd, and leads nowhere.
            found = Path(os.path.realpath(self._folder / name))
            if symbolic and not found.is_relative_to(root):
                raise Refused(f"a link to a place outside: {name!r} -> {target!r}")


def _plain(name: str) -> str:
    """Return a name without ``./`` and a slash at its end.

    Raises:
        Refused: it could mean a place outside, or is no name.
    """
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if name.startswith("/") or ".." in parts or not name.isprintable():
        raise Refused(f"a name outside: {name!r}")
    return "/".join(parts)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(archive: str, folder: str, max_bytes: str) -> int:
    """Unpack; return the exit code."""
    os.umask(0o022)
    # Headers are read whole, however long they say they are.
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    try:
        digest = Unpacking(Path(folder), int(max_bytes)).run(Path(archive))
    except Refused as exc:
        _say(f"refused: {exc}")
        return 1
    except (tarfile.TarError, OSError, EOFError, ValueError, MemoryError) as exc:
        _say(f"cannot be unpacked: {type(exc).__name__}: {exc}")
        return 1
    _say(f"sha256 {digest}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
