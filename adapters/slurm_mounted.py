"""A site whose folder is mounted on this host, and whose Slurm answers over HTTP.

The program that otherwise runs on a login node runs here: claims, ends and logs lie in the folder
that this host shares with the compute nodes, under the same path, and belong to the user whose
jobs they are.
"""

from __future__ import annotations

import contextlib
import io
import os
from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters.slurm_on_login import answered
from temporal_fabric.adapters.slurm_on_login_queue import Trouble
from temporal_fabric.adapters.slurm_rest_api import RestApi
from temporal_fabric.adapters.slurm_rest_queue import RestQueue
from temporal_fabric.adapters.slurm_transport import GROWS, result_of
from temporal_fabric.errors import BackendUnknown

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from temporal_fabric.adapters.slurm_options import RestOptions


class MountedSite:
    """See `Transport`.

    Args:
        options: Of the backend.
        owner: Whose attempts are meant: fabrics that share a folder have one of their own below.
    """

    def __init__(self, options: RestOptions, owner: str) -> None:
        self._options, self._owner = options, owner
        self._api = RestApi(options)
        self._queue = RestQueue(self._api, options)

    @property
    def where(self) -> str:
        """See `Transport.where`."""
        return self._options.url

    @property
    def about(self) -> dict[str, str]:
        """See `Transport.about`."""
        try:
            version, until = self._api.version(), self._api.token_until()
        except Trouble as exc:
            raise BackendUnknown(str(exc)) from exc
        return {"slurmrestd": f"{self.where} {version}", "token": until}

    def ask(self, verb: str, *, longer_s: float = 0.0, **asked: Any) -> Any:
        """See `Transport.ask`; the limits are those of the calls to slurmrestd."""
        del longer_s
        self._present()
        request = {
            "verb": verb,
            "owner": self._owner,
            "folder": self._options.folder,
            "settle_s": self._options.settle_s,
            "grows": GROWS,
            **asked,
        }
        return result_of(answered(request, self._queue), self.where)

    @contextlib.contextmanager
    def files(self) -> Generator[MountedFiles]:
        """See `Transport.files`."""
        self._present()
        yield MountedFiles()

    def close(self) -> None:
        """See `Transport.close`: nothing is held between two calls."""

    def _present(self) -> None:
        """Take an empty mount point for what it is: a site that cannot be asked."""
        folder = self._options.folder
        try:
            there = os.stat(folder).st_uid, os.path.ismount(folder)  # noqa: PTH116 - one look
        except OSError as exc:
            raise BackendUnknown(
                f"the site's folder is not there [folder={folder}, why={exc.strerror}]: "
                "mount it, and make the folder once"
            ) from exc
        if there[1]:
            raise BackendUnknown(
                f"the site's folder is the mount point itself [folder={folder}]: name a folder "
                "in it, which is not there while nothing is mounted"
            )
        if there[0] != os.geteuid():
            raise BackendUnknown(
                f"the site's folder is another user's [folder={folder}, uid={there[0]}]: run the "
                f"worker as the user of the option 'user', {self._options.user}, whose folder it is"
            )


class MountedFile(io.FileIO):
    """See `RemoteFile`."""

    def readv(self, chunks: Sequence[tuple[int, int]]) -> Iterator[bytes]:
        """See `RemoteFile.readv`."""
        for place, length in chunks:
            yield os.pread(self.fileno(), length, place)

    def set_pipelined(self, pipelined: bool) -> None:  # noqa: FBT001 - paramiko's
        """See `RemoteFile.set_pipelined`: nothing has to be waited for."""


class MountedFiles:
    """See `Files`."""

    lstat = staticmethod(os.lstat)
    stat = staticmethod(os.stat)
    mkdir = staticmethod(os.mkdir)
    symlink = staticmethod(os.symlink)
    chmod = staticmethod(os.chmod)
    posix_rename = staticmethod(os.replace)

    def open(self, filename: str, mode: str = "r") -> MountedFile:
        """See `Files.open`."""
        return MountedFile(filename, mode)
