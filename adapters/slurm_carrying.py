"""An attempt's files on their way to a site and back: what goes where, and when."""

from __future__ import annotations

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
