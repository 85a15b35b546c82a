"""What the Slurm adapter needs of the way to a site, and what every way has in common.

Over SSH, `slurm_login` runs the fabric's program on a login node, which has Slurm's commands and
the files. Where the site offers slurmrestd, `slurm_mounted` runs the same program here, on the
site's folder, and asks Slurm by HTTP.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Protocol, Self

from temporal_fabric.adapters.slurm_on_login_queue import PREFIX
from temporal_fabric.errors import BackendUnknown, PermanentBackendError, TransientBackendError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType

    from temporal_fabric.adapters.contract import AttemptKey

GROWS = ("stdout.log", "stderr.log", "telemetry.jsonl", "error.txt")
"""Files of an attempt that are carried over while its payload runs."""


class PeerRefused(TransientBackendError):
    """The other side is not who was pinned: nobody is sent there until a person has looked."""


class Status(Protocol):
    """What is known of a file."""

    @property
    def st_size(self) -> int | None:
        """Bytes."""
        ...


class RemoteFile(Protocol):
    """An open file of the site; closed by ``with``."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> bool | None: ...
    def seek(self, offset: int, /) -> object:
        """Go on from there."""
        ...

    def write(self, data: bytes, /) -> object:
        """Write all of it."""
        ...

    def readv(self, chunks: Sequence[tuple[int, int]], /) -> Iterable[bytes]:
        """Yield pieces by place and length."""
        ...

    def set_pipelined(self, pipelined: bool, /) -> None:  # noqa: FBT001 - paramiko's
        """Do not wait for the answer to each write."""
        ...


class Files(Protocol):
    """The site's files, in the words of an SFTP client; every method raises `OSError`."""

    def lstat(self, path: str, /) -> Status:
        """Describe what lies there, links too."""
        ...

    def stat(self, path: str, /) -> Status:
        """Describe the file there."""
        ...

    def mkdir(self, path: str, mode: int = 0o777, /) -> None:
        """Make a folder."""
        ...

    def symlink(self, source: str, dest: str, /) -> None:
        """Make a link at ``dest``."""
        ...

    def chmod(self, path: str, mode: int, /) -> None:
        """Set a file's rights."""
        ...

    def posix_rename(self, oldpath: str, newpath: str, /) -> None:
        """Give a file another name, whatever bore that before."""
        ...

    def open(self, filename: str, mode: str = "r", /) -> RemoteFile:
        """Open a file: ``rb``, ``r+`` or ``w``."""
        ...


class Transport(Protocol):
    """One way to one site. Blocking, and safe to be used by many threads."""

    @property
    def where(self) -> str:
        """The site, for messages."""
        ...

    @property
    def about(self) -> Mapping[str, str]:
        """What ``doctor`` tells of the way."""
        ...

    def ask(self, verb: str, *, longer_s: float = 0.0, **asked: Any) -> Any:
        """Do one thing on the site and return the answer.

        Args:
            verb: What is done; a ``do_...`` of `slurm_on_login`.
            longer_s: How much longer it may take than Slurm itself does.
            asked: What the verb needs.

        Raises:
            PermanentBackendError: Slurm refuses it for good.
            TransientBackendError: it did not work now; `BackendUnknown` where nobody knows, and
                `PeerRefused` where the other side is not who was pinned.
        """
        ...

    def files(self) -> AbstractContextManager[Files]:
        """Open the site's files; `OSError` of single ones passes through.

        Raises:
            BackendUnknown: the way there was lost.
        """
        ...

    def close(self) -> None:
        """End it; calls under way may fail."""
        ...


def job_name(owner: str, key: AttemptKey) -> str:
    """Return the name of an attempt's job: the same one always, and no other attempt's.

    Args:
        owner: Whose attempts are meant: fabrics that share a login have folders of their own.
        key: The attempt.
    """
    digest = hashlib.sha256(f"{owner}\n{key}".encode()).hexdigest()
    return f"{PREFIX}{digest[:24]}"


def array_name(names: Iterable[str]) -> str:
    """Return the name of the array of these jobs, in this order."""
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    return f"{PREFIX}a-{digest[:22]}"


def result_of(told: Mapping[str, Any], where: str) -> Any:
    """Return what an answer of the program brings.

    Raises:
        PermanentBackendError: it is a refusal for good.
        BackendUnknown: it brings nothing.
    """
    if told.get("kind") == "permanent":
        raise PermanentBackendError(f"{told['trouble']} [site={where}]")
    if "ok" not in told:
        raise BackendUnknown(f"{told.get('trouble')} [site={where}]")
    return told["ok"]
