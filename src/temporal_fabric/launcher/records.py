"""The durable record of every attempt: one small JSON file, replaced whole.

Live and unconfirmed attempts are in ``attempts/``; confirmed and forbidden ones are tombstones
in ``tombstones/``, which refuse a late start for some days. A file that cannot be read is a
LOST attempt: after a power cut an unsynced rename may leave an empty file, and "absent" would
run the attempt twice.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from temporal_fabric.launcher.protocol import LaunchRecord

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_SUFFIX = ".json"
_TEMPORARY = ".tmp"


class Records:
    """The records below one home. Methods block on the disk and may run in any thread."""

    def __init__(self, home: Path) -> None:
        self._attempts = home / "attempts"
        self._tombstones = home / "tombstones"
        for folder in (self._attempts, self._tombstones):
            if not folder.exists():
                folder.mkdir(mode=0o700, exist_ok=True)
                _sync(home)

    def read(self, key: str) -> LaunchRecord | None:
        """Return the record, None where there is none, a lost one where it is unreadable."""
        # `forget` writes the tombstone before it removes the record: look in this order.
        for folder in (self._attempts, self._tombstones):
            try:
                data = (folder / f"{key}{_SUFFIX}").read_bytes()
            except FileNotFoundError:
                continue
            return _parse(key, data)
        return None

    def write(self, record: LaunchRecord, *, durable: bool, argv: Sequence[str] = ()) -> None:
        """Replace the record. Not durable is enough to survive everything but a power cut."""
        extra = {"argv": list(argv)} if argv else {}
        _replace(self._attempts / f"{record.key}{_SUFFIX}", record.as_dict() | extra, durable)

    def entomb(self, record: LaunchRecord) -> None:
        """Turn a record into a tombstone, or write one for a key that has none."""
        _replace(self._tombstones / f"{record.key}{_SUFFIX}", record.as_dict(), durable=True)
        (self._attempts / f"{record.key}{_SUFFIX}").unlink(missing_ok=True)

    def remove(self, key: str) -> None:
        """Remove the record of an attempt that provably never ran."""
        (self._attempts / f"{key}{_SUFFIX}").unlink(missing_ok=True)
        _sync(self._attempts)

    def attempts(self) -> list[LaunchRecord]:
        """Return every record that is no tombstone."""
        found: list[LaunchRecord] = []
        for path in self._attempts.glob(f"*{_SUFFIX}"):
            record = self.read(path.name.removesuffix(_SUFFIX))
            found += [record] if record is not None else []
        return found

    def remove_temporaries(self) -> None:
        """Remove what a killed launcher was writing; only safe while no launcher runs."""
        for folder in (self._attempts, self._tombstones):
            for path in folder.glob(f".*{_TEMPORARY}"):
                path.unlink(missing_ok=True)

    def remove_tombstones(self, days: float) -> None:
        """Remove tombstones older than some days."""
        oldest = time.time() - days * 86_400
        for path in self._tombstones.iterdir():
            with suppress(FileNotFoundError):
                if path.lstat().st_mtime < oldest:
                    path.unlink()


def lost(record: LaunchRecord, why: str, error: str) -> LaunchRecord:
    """Return the record of an attempt whose end nobody saw."""
    return replace(record, state="lost", why=why, error=error, ended_at=time.time())


def _parse(key: str, data: bytes) -> LaunchRecord:
    try:
        record = LaunchRecord.from_dict(json.loads(data))
    except (ValueError, TypeError, AttributeError):
        return LaunchRecord(key, "lost", why="torn", error="the record cannot be read")
    if record.key != key:
        return LaunchRecord(key, "lost", why="torn", error="the record is of another key")
    return record


def _replace(path: Path, content: dict[str, Any], durable: bool) -> None:  # noqa: FBT001
    temporary = path.with_name(f".{secrets.token_hex(8)}{_TEMPORARY}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
            file.write(json.dumps(content).encode())
            file.flush()
            if durable:
                os.fsync(fd)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        _sync(path.parent)


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
