"""Who has which GPU: one small file of the host per device, shared by all workers.

A reservation is made before a payload starts and names what tells of its end: the launcher's
durable record, or the backend that made it. It is over with proof alone, and no process holds it:
a lock that the kernel frees with a process would be free while what that process has started still
computes. One lock orders those who choose.

The folder is the host's and not the fabric's home, because several homes share the devices. On
``/run`` it ends with the boot, as every payload does.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from temporal_fabric.errors import TransientBackendError
from temporal_fabric.launcher.records import Records
from temporal_fabric.launcher.syscalls import boot_id

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

FOLDER_ENV = "FABRIC_GPU_RESERVATIONS"
_FOLDER = "/run/lock/temporal-fabric-gpus"

_LOCK, _SUFFIX = "lock", ".json"
_SHARED = 0o1777
"""Everybody may add files, and remove their own only: as in /tmp."""

_OTHER = re.compile(r"[^A-Za-z0-9._-]")


@dataclass(frozen=True, slots=True)
class Reservation:
    """One device that is somebody's."""

    device: str
    backend: str
    """Instance name of the backend that took it."""

    key: str
    """The attempt."""

    since: str = ""
    boot: str = ""
    launcher: str = ""
    """Folder of the launcher whose record tells when the payload has ended; else the backend."""

    def is_over(self) -> bool:
        """Say whether it is proven that nothing of the attempt runs; False is no answer."""
        if self.boot != boot_id():
            return bool(self.boot)
        home = Path(self.launcher)
        with suppress(OSError):  # another user's, or gone
            if self.launcher and (home / "attempts").is_dir():
                record = Records(home).read(self.key)
                return record is not None and record.state in {"ended", "lost"}
        return False


class Reservations:
    """The reservations of this host; every method blocks.

    Args:
        folder: Where they lie; the same for all workers of the host.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or Path(os.environ.get(FOLDER_ENV) or _FOLDER)

    def usable(self) -> str:
        """Return why nothing can be reserved here, and what to do; empty where it can."""
        try:
            with self.locked():
                return ""
        except TransientBackendError as exc:
            return str(exc)

    def all(self) -> dict[str, Reservation]:
        """Return the reservations by device, without the lock: for people."""
        try:
            return {held.device: held for held in self._read()}
        except OSError:
            return {}

    @contextmanager
    def locked(self) -> Generator[dict[str, Reservation]]:
        """Yield the reservations by device while nobody else changes them.

        Raises:
            TransientBackendError: the folder cannot be used.
        """
        try:
            self._make()
            lock = self._open_lock()
        except OSError as exc:
            raise TransientBackendError(
                f"no GPU can be reserved, {self.folder} cannot be used ({exc}): set {FOLDER_ENV} "
                "to a folder that all workers of this host can write"
            ) from exc
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield {held.device: held for held in self._read()}
        finally:
            os.close(lock)

    def put(self, held: Reservation) -> None:
        """Note a reservation; under the lock."""
        path = self._path(held.device)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        # No fsync: a power cut ends the payload as well.
        temporary.write_text(json.dumps(asdict(held)), encoding="utf-8")
        temporary.replace(path)

    def remove(self, devices: Iterable[str]) -> None:
        """Give devices back; under the lock. What is another user's stays."""
        for device in devices:
            with suppress(FileNotFoundError, PermissionError):
                self._path(device).unlink()

    def _make(self) -> None:
        try:
            self.folder.mkdir(parents=True)
            self.folder.chmod(_SHARED)
        except FileExistsError:
            if self.folder.is_symlink():
                raise

    def _open_lock(self) -> int:
        path = self.folder / _LOCK
        while True:
            # Not created by opening: the kernel refuses that for a file of another user.
            with suppress(FileNotFoundError):
                return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL, 0o644))

    def _read(self) -> list[Reservation]:
        return [_parse(path) for path in sorted(self.folder.glob(f"[!.]*{_SUFFIX}"))]

    def _path(self, device: str) -> Path:
        return self.folder / f"{_OTHER.sub('_', device)}{_SUFFIX}"


def _parse(path: Path) -> Reservation:
    """Read a file; one that means nothing is a reservation of nobody knows whom."""
    try:
        return Reservation(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return Reservation(path.name.removesuffix(_SUFFIX), "?", "?")
