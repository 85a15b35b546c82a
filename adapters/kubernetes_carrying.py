"""What belongs to an attempt, carried between its folder on this host and its pod.

In goes what was staged, by a tar stream into the pod's first container. While the payload runs
its output and telemetry follow as logs. At the end all it wrote comes back by a tar stream out of
the keeper. Every step can be repeated by any worker of the host, after any crash.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from temporal_fabric import durable, python_runner
from temporal_fabric.adapters.archives import TooLarge, pack, unpack
from temporal_fabric.adapters.kubernetes_api import Conflict, NotFound
from temporal_fabric.adapters.kubernetes_commands import FOLDER
from temporal_fabric.adapters.kubernetes_exec import Command, CommandFailed
from temporal_fabric.adapters.kubernetes_job import KEEPER, PAYLOAD, STAGE
from temporal_fabric.adapters.kubernetes_keeper import (
    PACK,
    PARTED,
    PAUSE,
    RELEASE,
    RESUME,
    STOP,
    UNPACK,
)
from temporal_fabric.adapters.kubernetes_logs import FollowedLog
from temporal_fabric.errors import BackendUnknown, TransientBackendError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from pathlib import Path

    from temporal_fabric.adapters.kubernetes_api import KubernetesApi
    from temporal_fabric.workplace import Workplace

BROUGHT = "brought.json"
"""What the pod is brought, beside the attempt's folders: paths by their place below `ROOT`."""

_CARRIED = ".carried"
_SILENT_S, _QUICK_S = 60.0, 3.0
"""How long the other side of a transfer may say nothing, and that of a question."""


class Carrying:
    """The files of one attempt. Its methods block.

    Args:
        api: The cluster.
        place: The attempt's folders on this host.
        member: Which pod of a gang; 0 has the attempt's own folders.
    """

    def __init__(self, api: KubernetesApi, place: Workplace, member: int = 0) -> None:
        self._api, self._place = api, place
        self._folder = place.folder if member == 0 else place.folder / f"member-{member}"
        self._member = member

    @property
    def carried(self) -> bool:
        """Whether all that the payload wrote is here."""
        return (self._folder / _CARRIED).exists()

    @property
    def timed_out(self) -> bool:
        """Whether the keeper has ended the payload for its wall limit."""
        return (self._folder / _CARRIED / "timeout").exists()

    def command(self, name: str) -> Path:
        """Return where a command's folder lies once all is here."""
        return self._folder / _CARRIED / FOLDER / name

    def stage(self, pod: str, uid: str) -> None:
        """Bring the pod what was staged for it, once; the payload begins then.

        Args:
            pod: Name of the pod, whose first container waits.
            uid: Identity of the pod.

        Raises:
            BackendUnknown: the pod cannot be reached now.
            TransientBackendError: its container is gone, or has no room.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        staged = self._folder / f".staged-{uid}"
        with self._alone(), self._failing("staged"):
            if staged.exists():
                return
            brought = json.loads((self._place.folder / BROUGHT).read_bytes())
            sent = pack({name: self._place.root / path for name, path in brought.items()})
            argv = ["sh", "-c", UNPACK, STAGE, str(sent.size)]
            with Command(self._api, pod, STAGE, argv, _SILENT_S) as command:
                command.send(sent.chunks)
                command.finish()
            staged.touch()

    def follow(self, pod: str) -> None:
        """Bring standard output and telemetry up to date, as far as the logs have them.

        Raises:
            BackendUnknown: a log cannot be read now.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._alone():
            if self.carried:
                return
            self._log(pod, PAYLOAD, self._folder / "stdout.log", mark_gaps=True)
            self._log(pod, KEEPER, self._folder / "telemetry.jsonl", mark_gaps=False)

    def fetch(self, pod: str, message: str, limit_bytes: int | None) -> None:
        """Bring everything that the payload wrote; nothing happens where that was done.

        Args:
            pod: Name of the pod, whose payload has ended.
            message: What its container said last: its error file.
            limit_bytes: What the outputs may take together.

        Raises:
            TooLarge: they take more; the rest is here.
            BackendUnknown: the pod cannot be reached now.
            TransientBackendError: its keeper is gone.
        """
        self.follow(pod)
        with self._alone():
            if self.carried:
                return
            came = self._folder / ".coming"
            shutil.rmtree(came, ignore_errors=True)
            came.mkdir(mode=0o700)
            limits = {} if limit_bytes is None else {"output": limit_bytes}
            too_large = None
            try:
                self._unpack(pod, came, limits)
            except TooLarge as exc:
                too_large = exc
                shutil.rmtree(came / "output", ignore_errors=True)
            self._install(came, message)
        if too_large is not None:
            raise too_large

    def release(self, pod: str) -> None:
        """Let a pod end whose files are here; one that has ended already is fine.

        Raises:
            BackendUnknown: the pod cannot be reached now.
        """
        with suppress(CommandFailed):
            self._tell(pod, RELEASE)

    def end(self, pod: str, grace_s: int) -> None:
        """Let the keeper end the payload: SIGTERM, grace, SIGKILL; what it wrote stays.

        Raises:
            TransientBackendError: the keeper cannot be reached now.
        """
        with self._failing("reached"):
            self._tell(pod, STOP, str(grace_s))

    def pause(self, pod: str) -> None:
        """Let every process of the payload stand still.

        Raises:
            TransientBackendError: one does not stand still yet, or there is none.
        """
        with self._failing("reached"):
            self._tell(pod, PAUSE)

    def resume(self, pod: str) -> None:
        """Let the payload go on.

        Raises:
            TransientBackendError: the keeper cannot be reached now.
        """
        with self._failing("reached"):
            self._tell(pod, RESUME)

    def has_parted(self, pod: str) -> bool:
        """Return whether the payload of a pod that is taken away has ended, as far as it can tell.

        Its node reports that only when the whole pod has ended, and its files with it.
        """
        try:
            with self._failing("reached"):
                self._tell(pod, PARTED, limit_s=_QUICK_S)
        except TransientBackendError:
            return False
        return True

    def _tell(self, pod: str, script: str, *words: str, limit_s: float = _SILENT_S) -> None:
        argv = ["sh", "-c", script, KEEPER, *words]
        with Command(self._api, pod, KEEPER, argv, limit_s) as command:
            command.finish()

    def _unpack(self, pod: str, came: Path, limits: Mapping[str, int]) -> None:
        argv = ["sh", "-c", PACK]
        with self._failing("fetched"), Command(self._api, pod, KEEPER, argv, _SILENT_S) as command:
            unpack(command.output(), came, limits)

    def _install(self, came: Path, message: str) -> None:
        """Move what came to its places; a folder is there whole, or not at all."""
        for name in ("output", "checkpoints"):
            if not (came / name).is_dir():
                continue
            target = self._folder / name
            if name == "checkpoints" and self._member == 0:
                target = self._place.checkpoints
            old = came / f"{name}.old"
            if target.exists():
                target.rename(old)
            (came / name).rename(target)
        self._telemetry(came / "telemetry.jsonl")
        if message:
            (self._folder / "error.txt").write_text(message, encoding="utf-8")
        facts = came / ".fabric"
        facts.mkdir(exist_ok=True)
        durable.sync_folder(self._folder)
        facts.rename(self._folder / _CARRIED)
        shutil.rmtree(came, ignore_errors=True)

    def _telemetry(self, whole: Path) -> None:
        """Append what the followed log has not brought: one is the beginning of the other."""
        if not whole.is_file():
            return
        with whole.open("rb") as source, (self._folder / "telemetry.jsonl").open("ab") as target:
            source.seek(target.tell())
            shutil.copyfileobj(source, target)

    def _log(self, pod: str, container: str, path: Path, *, mark_gaps: bool) -> None:
        where = f"/api/v1/namespaces/{self._api.namespace}/pods/{pod}/log"

        def read(since: str | None, limit: int) -> bytes:
            asked = {"container": container, "timestamps": "true", "limitBytes": str(limit)}
            return self._api.read(where, sinceTime=since, **asked)

        # A container that has not begun has no log, and neither has a pod that is gone.
        with suppress(NotFound):
            FollowedLog(path, read, mark_gaps=mark_gaps).advance()

    @contextmanager
    def _alone(self) -> Generator[None]:
        """Hold the attempt's files: another worker, or another reader, does the same."""
        with (self._folder / ".lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _failing(self, what: str) -> Generator[None]:
        try:
            yield
        except CommandFailed as exc:
            raise TransientBackendError(f"files could not be {what}: {exc}") from exc
        except (Conflict, NotFound, ValueError) as exc:
            raise BackendUnknown(f"files could not be {what}: {exc}") from exc


def write_brought(place: Workplace, brought: Mapping[str, Path], call: Any) -> None:
    """Write down what the pod is brought, and what is only made for it.

    Args:
        place: The attempt's folders.
        brought: Paths on this host by their place in the pod.
        call: What the runner of a python payload is told; None for the other kinds.

    Raises:
        OSError: the folder cannot be written.
    """
    if call is not None:
        durable.replace(place.folder / "call.json", json.dumps(call).encode())
        shutil.copyfile(python_runner.__file__, place.folder / "python_runner.py")
    rows = {name: os.path.relpath(path, place.root) for name, path in brought.items()}
    durable.replace(place.folder / BROUGHT, json.dumps(rows).encode())


def write_source(place: Workplace, entry_point: str, source: tuple[str, ...]) -> None:
    """Write the file that a python payload brings in its request."""
    file = place.folder / "task" / entry_point.partition(":")[0]
    durable.replace(file, "".join(f"{line}\n" for line in source).encode())
