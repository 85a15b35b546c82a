"""An attempt's files on their way to a site and back: what goes where, and when."""

from __future__ import annotations

import base64
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from temporal_fabric.adapters.slurm_files import fetch_growth, fetch_tree, send_tree
from temporal_fabric.errors import TransientBackendError

if TYPE_CHECKING:
    from collections.abc import Generator

    from temporal_fabric.adapters.contract import AttemptSpec
    from temporal_fabric.adapters.slurm_batch import Place
    from temporal_fabric.adapters.slurm_states import Seen
    from temporal_fabric.adapters.slurm_transport import Transport
    from temporal_fabric.workplace import Workplace

_SMALL = 1 << 16
"""An attempt with fewer bytes of files takes them along when it is submitted."""

_FEW = 32

Entry = tuple[str, str, int, str]
"""Path, ``file``, ``folder`` or ``link``, rights, and content in Base64 or where a link leads."""


def small_files(attempt: AttemptSpec) -> list[Entry] | None:
    """Return what an attempt brings, by its place below its experiment's folder on the site.

    Returns:
        None where there is much of it, or something that cannot be carried: `Carrying.send` it.
    """
    epoch, left, found = str(attempt.key.epoch), _SMALL, list[Entry]()
    roots = {
        f"{epoch}/task": attempt.folder / "task",
        f"{epoch}/input": attempt.folder / "input",
        "checkpoints": attempt.checkpoints,
    }
    for there, here in roots.items():
        for path in sorted(here.rglob("*")):
            target, info = f"{there}/{path.relative_to(here).as_posix()}", path.lstat()
            if stat.S_ISDIR(info.st_mode):
                found.append((target, "folder", 0o700, ""))
            elif stat.S_ISLNK(info.st_mode) and not path.readlink().is_absolute():
                found.append((target, "link", 0o700, str(path.readlink())))
            elif stat.S_ISREG(info.st_mode) and info.st_size <= left:
                content = path.read_bytes()
                left -= len(content)
                text = base64.b64encode(content).decode()
                found.append((target, "file", info.st_mode & 0o700, text))
            else:
                return None
            if len(found) > _FEW:
                return None
    return found


class Carrying:
    """Moves the files of attempts. Blocking; everything may be repeated.

    Args:
        transport: To the site.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def send(self, attempt: AttemptSpec, place: Place) -> None:
        """Copy task folder, inputs and checkpoints to the site.

        Raises:
            PermanentBackendError: something among them cannot be carried.
            TransientBackendError: the site does not take a file now.
        """
        trees = {
            attempt.folder / "task": f"{place.folder}/task",
            attempt.folder / "input": f"{place.folder}/input",
            attempt.checkpoints: place.checkpoints,
        }
        with self._refusals(f"copied to {place.folder}"), self._transport.files() as files:
            for here, there in trees.items():
                send_tree(files, here, there, self._digest)

    def grow(self, place: Workplace, seen: Seen) -> None:
        """Bring over what the payload has written since; raises as `send`."""
        place.create()
        with self._refusals("brought over"), self._transport.files() as files:
            fetch_growth(files, seen.folder, place.folder, seen.sizes)

    def gather(self, job: str, place: Workplace, seen: Seen) -> str:
        """Bring over outputs and checkpoints; return why not, where that is over a limit.

        Args:
            job: The job's name.
            place: Where they go.
            seen: Where they are.
        """
        place.create()
        roots = {
            f"{seen.folder}/output": place.output,
            f"{seen.folder.rpartition('/')[0]}/checkpoints": place.checkpoints,
        }
        told = self._transport.ask("list", name=job, roots=list(roots))
        limit, first = told["limit"], next(iter(roots))
        total = sum(size for _, _, size, _ in told["found"][first])
        if limit is not None and total > limit:
            return f"the outputs take {total} bytes, limits.output_bytes is {limit}"
        with self._refusals("brought over"), self._transport.files() as files:
            for there, here in roots.items():
                fetch_tree(files, there, here, told["found"][there])
        return ""

    def _digest(self, path: str, count: int) -> str:
        return str(self._transport.ask("digest", path=path, count=count))

    @contextmanager
    def _refusals(self, what: str) -> Generator[None]:
        """Turn the refusal of a single file, there or here, into a transient error."""
        try:
            yield
        except OSError as exc:
            raise TransientBackendError(
                f"files cannot be {what} [site={self._transport.where}]: {exc}; look at the space "
                "and the rights there"
            ) from exc
