"""Copies of flows' checkpoints in the store, from which a flow goes on at any host.

::

    flows/<tenant>/<id>/<epoch>.json       what the newest copy of an epoch is made of
    flows/<tenant>/<id>/<epoch>/<sha256>   its files, each once

A copy is a run's folder up to one checkpoint. It is made beside the run, at most every so often,
and shows only when all of it is there; what the one before has alone is removed then. Each epoch
writes its own, so a host that was given up and wakes up disturbs nobody.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import shutil
import time
import tomllib
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from temporal_fabric import durable
from temporal_fabric.capsule.manifest import MANIFEST
from temporal_fabric.errors import StaleEpoch, StoreError
from temporal_fabric.recorder.flow_runs import SEGMENTS, number_of, parts
from temporal_fabric.store.folder import checked_key
from temporal_fabric.store.store import local_path

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping
    from pathlib import Path

    from temporal_fabric.adapters.contract import AttemptKey
    from temporal_fabric.config import Settings
    from temporal_fabric.store import Store
    from temporal_fabric.workplace import Workplace

log = logging.getLogger(__name__)

_SCHEMA_VERSION = 1
_LINKS = "copying"
"""Beside a run's folder: the files of a copy under way, which the run may replace meanwhile."""


@dataclass(frozen=True)
class _File:
    path: str
    size: int
    sha256: str


@dataclass
class _Copying:
    """What is known of the copies of one attempt."""

    last: float
    task: asyncio.Task[None] | None = None
    known: dict[str, tuple[tuple[int, int, int], _File]] = field(
        default_factory=dict[str, "tuple[tuple[int, int, int], _File]"]
    )
    """By path: which file it was, and what of it lies in the store."""


class FlowCopies:
    """The copies that one worker makes and finds.

    Args:
        settings: How often they are made; none are, where the store is this host's own folder.
        store: Where they lie.
    """

    def __init__(self, settings: Settings, store: Store) -> None:
        self._every_s = settings.flows.copy_every_s
        own = local_path(store.root)
        self._shared = own is None or not own.resolve().is_relative_to(settings.home.resolve())
        self._objects = store.objects
        self._attempts: dict[AttemptKey, _Copying] = {}

    async def exist(self, tenant: str, request_id: str, epoch: int | None = None) -> bool:
        """Say whether there is a copy of a flow's checkpoint: of any epoch, or of a given one."""
        found = await asyncio.to_thread(self._indexes, tenant, request_id)
        return bool(found) if epoch is None else epoch in found

    async def after_step(
        self, key: AttemptKey, place: Workplace, fence: Callable[[], Awaitable[None]]
    ) -> None:
        """Copy beside the run where that is due; return as soon as the run may go on.

        Args:
            key: The attempt.
            place: Where its run is; no step of it is under way.
            fence: Raises `StaleEpoch` where the attempt may not write any more.
        """
        if not self._every_s or not self._shared:
            return
        found = self._attempts.setdefault(key, _Copying(time.monotonic()))
        busy = found.task is not None and not found.task.done()
        if busy or time.monotonic() - found.last < self._every_s:
            return
        found.last = time.monotonic()
        if await self._linked(key, place):
            found.task = asyncio.create_task(self._copied(key, place, found, fence))

    async def at_end(
        self, key: AttemptKey, place: Workplace, fence: Callable[[], Awaitable[None]]
    ) -> None:
        """Copy the last good checkpoint of an attempt that another host may go on with."""
        if not self._every_s or not self._shared:
            return
        found = self._attempts.pop(key, None) or _Copying(0.0)
        if found.task is not None:
            await found.task
        if await self._linked(key, place):
            await self._copied(key, place, found, fence)

    async def bring(self, key: AttemptKey, place: Workplace) -> int | None:
        """Put the furthest copy of the earlier epochs in place of a run that is less far.

        Returns:
            Its number; None where what lies here is as far.

        Raises:
            StoreError: the store cannot be reached, or what it holds is damaged.
            OSError: the disk is full or gone.
        """
        return await asyncio.to_thread(self._brought, key, place)

    async def drop(self, tenant: str, request_id: str) -> None:
        """Remove every copy of a run that is sealed."""
        ours = [
            one for one in self._attempts if (one.tenant, one.request_id) == (tenant, request_id)
        ]
        for key in ours:
            task = self._attempts.pop(key).task
            if task is not None:
                await task
        await asyncio.to_thread(self._dropped, tenant, request_id)

    async def aclose(self) -> None:
        """Leave what is being copied: the copy before it stays."""
        for one in self._attempts.values():
            if one.task is not None:
                one.task.cancel()

    async def _linked(self, key: AttemptKey, place: Workplace) -> bool:
        try:
            return await asyncio.to_thread(_linked, place)
        except OSError as exc:
            _warn(key, exc)
            return False

    async def _copied(
        self,
        key: AttemptKey,
        place: Workplace,
        found: _Copying,
        fence: Callable[[], Awaitable[None]],
    ) -> None:
        """Copy what is linked; that it fails is told, and costs the run nothing."""
        try:
            await fence()
            await asyncio.to_thread(self._sent, key, place.root / _LINKS, found)
        except StaleEpoch:
            return
        except (StoreError, OSError) as exc:
            _warn(key, exc)

    def _sent(self, key: AttemptKey, links: Path, found: _Copying) -> None:
        prefix = f"{_prefix(key.tenant, key.request_id)}/{key.epoch:06d}"
        files: list[_File] = []
        for path in sorted(path for path in links.rglob("*") if path.is_file()):
            name, stat = path.relative_to(links).as_posix(), path.stat()
            which = stat.st_ino, stat.st_size, stat.st_mtime_ns
            if name not in found.known or found.known[name][0] != which:
                size, sha256 = durable.hash_file(path)
                self._objects.put_file(f"{prefix}/{sha256}", path, sha256)
                found.known[name] = which, _File(name, size, sha256)
            files.append(found.known[name][1])
        index = {
            "schema_version": _SCHEMA_VERSION,
            "number": _number(links),
            "files": [asdict(one) for one in files],
        }
        self._objects.replace(f"{prefix}.json", json.dumps(index).encode())
        kept = {one.sha256 for one in files}
        for name in set(self._objects.names(prefix)) - kept:
            self._objects.delete(f"{prefix}/{name}")
        found.known = {one.path: found.known[one.path] for one in files}
        shutil.rmtree(links, ignore_errors=True)

    def _brought(self, key: AttemptKey, place: Workplace) -> int | None:
        best: tuple[int, int, Mapping[str, Any]] | None = None
        for epoch in self._indexes(key.tenant, key.request_id):
            index = self._index(key, epoch)
            if index is not None and epoch < key.epoch:
                best = max(best or (0, 0, {}), (index["number"], epoch, index), key=lambda x: x[:2])
        if best is None:
            return None
        # Its own first copy is due at once: until then nobody could take this epoch over.
        self._attempts[key], run = _Copying(-math.inf), place.checkpoints
        if best[0] <= _number(run):
            return None
        # Until the manifest is there again, last of all, there is no run here.
        (run / MANIFEST).unlink(missing_ok=True)
        for name in ("checkpoints", SEGMENTS):
            shutil.rmtree(run / name, ignore_errors=True)
        prefix = f"{_prefix(key.tenant, key.request_id)}/{best[1]:06d}"
        for one in sorted(best[2]["files"], key=lambda one: one["path"] == MANIFEST):
            target = run.joinpath(*checked_key(one["path"]).parts)
            durable.make_folder(target.parent)
            content = self._objects.chunks(f"{prefix}/{one['sha256']}")
            durable.write_hashed(content, target, one["sha256"])
        return best[0]

    def _indexes(self, tenant: str, request_id: str) -> list[int]:
        names = self._objects.names(_prefix(tenant, request_id))
        return [int(name[: -len(".json")]) for name in names if name.endswith(".json")]

    def _index(self, key: AttemptKey, epoch: int) -> dict[str, Any] | None:
        name = f"{_prefix(key.tenant, key.request_id)}/{epoch:06d}.json"
        data = self._objects.read(name)
        if data is None:
            return None
        try:
            found: dict[str, Any] = json.loads(data)
        except ValueError as exc:
            raise StoreError(f"damaged copy of a flow [key={name}]: remove it") from exc
        return found

    def _dropped(self, tenant: str, request_id: str) -> None:
        prefix = _prefix(tenant, request_id)
        # Indexes first: what has one is whole.
        for name in sorted(self._objects.names(prefix), key=lambda name: "." not in name):
            if "." in name:
                self._objects.delete(f"{prefix}/{name}")
                continue
            for inner in self._objects.names(f"{prefix}/{name}"):
                self._objects.delete(f"{prefix}/{name}/{inner}")


def _warn(key: AttemptKey, exc: Exception) -> None:
    log.warning("no copy of the checkpoint of %s in the store: %s", key, exc)


def _prefix(tenant: str, request_id: str) -> str:
    return f"flows/{tenant}/{request_id}"


def _manifest(run: Path) -> dict[str, Any]:
    try:
        return tomllib.loads((run / MANIFEST).read_text())
    except (FileNotFoundError, tomllib.TOMLDecodeError):
        return {}


def _number(run: Path) -> int:
    """Return the number of a run's last good checkpoint, 0 where it has none."""
    return int(_manifest(run).get("checkpoint", {}).get("number", 0))


def _linked(place: Workplace) -> bool:
    """Hold on to the files of a run as they are now; False where it has nothing to be copied."""
    run, links = place.checkpoints, place.root / _LINKS
    manifest = _manifest(run)
    if "checkpoint" not in manifest or manifest["redact_artifacts"]:
        return False
    shutil.rmtree(links, ignore_errors=True)
    for path in _files(run, manifest["checkpoint"]):
        target = links / path.relative_to(run)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, target)
    return True


def _files(run: Path, pointer: Mapping[str, Any]) -> Iterator[Path]:
    """Yield what a run needs to go on from a checkpoint, and its tables up to there."""
    yield run / MANIFEST
    yield run / "spec.json"
    yield run / pointer["file"]
    yield from (path for path in (run / "data").glob("*") if path.is_file())
    for table in ("telemetry", "events"):
        yield from (one for one in parts(run, table) if number_of(one) <= pointer["number"])
