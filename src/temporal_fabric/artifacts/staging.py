"""Bringing the inputs of an attempt into its input folder, before it is submitted.

Every input is written elsewhere first and then linked to its name, which fails where the name
exists: so a worker that was killed in the middle repeats safely, a worker that was only
asleep changes nothing under a running payload, and a payload never sees half a file.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from temporal_fabric import durable
from temporal_fabric.artifacts.capsule_outputs import Upstream, find_upstream, read_output
from temporal_fabric.artifacts.https import read_https
from temporal_fabric.artifacts.local_files import read_local
from temporal_fabric.artifacts.s3 import Bucket, bucket_and_key
from temporal_fabric.artifacts.transfer import Transfer
from temporal_fabric.artifacts.trees import blob_key, tree_digest, tree_key
from temporal_fabric.artifacts.workdirs import read_tree, unpack
from temporal_fabric.errors import ArtifactFailed, StoreError, TransientBackendError
from temporal_fabric.failpoints import FailPoint, reach
from temporal_fabric.outcomes import InputFile
from temporal_fabric.states import Reason
from temporal_fabric.workplace import input_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from temporal_fabric.config import ArtifactsConfig, Settings
    from temporal_fabric.requests.models import ExecutionRequest
    from temporal_fabric.requests.payloads import Input
    from temporal_fabric.store import Objects, Store
    from temporal_fabric.workplace import Workplace

_RECORD = "inputs.json"
_TRIES = 4
_PAUSE_S = 1.0
"""After the first of them; each further pause is twice as long."""


@dataclass(frozen=True, slots=True)
class _Staged:
    size: int
    sha256: str


async def stage_in(
    request: ExecutionRequest,
    place: Workplace,
    settings: Settings,
    store: Store,
    say: Callable[[str], None],
) -> None:
    """Bring in every input of a request and record it beside the input folder.

    Repeating it after any crash stages what is not recorded yet.

    Args:
        request: An admitted request with a process or python payload.
        place: The attempt's folders, which exist.
        settings: What transfers may reach.
        store: Where the capsules of other experiments lie.
        say: Told of the progress, for the heartbeat.

    Raises:
        ArtifactFailed: SETUP where an input is missing or refused, INTEGRITY where its
            content is not the expected one.
    """
    transfer = Transfer(settings.artifacts.max_bytes, settings.artifacts.max_seconds, say)
    done = list(recorded_inputs(place))
    works: list[_Staging | _Workdir] = [
        _Staging(place, number, wanted, settings.artifacts, store.objects, transfer)
        for number, wanted in enumerate(request.inputs.values())
    ]
    if request.workdir is not None:
        works.append(_Workdir(place, request.workdir, store.objects, transfer))
    for work in works[len(done) :]:
        done.append(await _patiently(work, store, transfer))
        reach(FailPoint.STAGING_NAMED)
        rows = json.dumps([asdict(given) for given in done]).encode()
        await asyncio.to_thread(durable.replace, place.folder / _RECORD, rows)


def recorded_inputs(place: Workplace) -> list[InputFile]:
    """Return the inputs that were staged for an attempt, in the request's order."""
    try:
        rows = json.loads((place.folder / _RECORD).read_bytes())
    except FileNotFoundError:
        return []
    return [InputFile(**row) for row in rows]


async def _patiently(work: _Staging | _Workdir, store: Store, transfer: Transfer) -> InputFile:
    """Stage one input; trouble that may pass is waited out, for a few seconds."""
    for tried in range(1, _TRIES + 1):
        try:
            upstream = await find_upstream(work.uri, store)
            return await transfer.in_thread(work.run, upstream)
        except TransientBackendError as exc:
            if tried == _TRIES:
                raise ArtifactFailed(f"input cannot be fetched: {work.uri}: {exc}") from exc
            await asyncio.sleep(_PAUSE_S * 2 ** (tried - 1))
    raise AssertionError("the last try returns or raises")


@dataclass(frozen=True, slots=True)
class _Workdir:
    """The working folder on its way. Its methods block."""

    place: Workplace
    uri: str
    objects: Objects
    transfer: Transfer

    def run(self, upstream: Upstream | None) -> InputFile:  # noqa: ARG002 - as `_Staging.run`
        self.transfer.begin(f"staging {self.uri}")
        aside = self.place.folder / "staging" / "workdir"
        task = self.place.folder / "task"
        try:
            size = unpack(self.objects, self.uri, task, aside=aside, transfer=self.transfer)
        except OSError as exc:
            raise ArtifactFailed(f"workdir cannot be staged: {self.uri}: {exc}") from exc
        return InputFile("", self.uri, size, tree_digest(self.uri) or "")


@dataclass(frozen=True, slots=True)
class _Staging:
    """One input on its way. Its methods block."""

    place: Workplace
    number: int
    wanted: Input
    config: ArtifactsConfig
    objects: Objects
    transfer: Transfer

    @property
    def uri(self) -> str:
        return self.wanted.source_uri

    def run(self, upstream: Upstream | None) -> InputFile:
        uri, path = self.wanted.source_uri, input_path(self.wanted.mount_path)
        if path is None:
            raise ArtifactFailed(f"{self.wanted.mount_path} is outside /input")
        aside = self.place.folder / "staging" / str(self.number)
        shutil.rmtree(aside, ignore_errors=True)
        self.transfer.begin(f"staging {uri}")
        try:
            staged = self._fetch(aside, upstream)
            self._check(staged)
            staged = self._publish(aside, self.place.input / path) or staged
            self._check(staged)
        except StoreError as exc:
            raise TransientBackendError(str(exc)) from exc
        except OSError as exc:
            raise ArtifactFailed(f"input cannot be staged: {uri}: {exc}") from exc
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        given = InputFile(path, uri, staged.size, staged.sha256)
        if upstream is None:
            return given
        return replace(
            given,
            tenant=upstream.tenant,
            request_id=upstream.request_id,
            capsule=upstream.capsule,
        )

    def _fetch(self, aside: Path, upstream: Upstream | None) -> _Staged:
        """Write the content below ``aside``: one file ``file``, or a folder ``folder``."""
        files: dict[str, _Staged] = {}
        for name, content in self._source(upstream):
            target = aside / "folder" / name if name else aside / "file"
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with target.open("xb") as file:
                files[name] = _measured(self.transfer.counted(content), file.write)
                file.flush()
                os.fsync(file.fileno())
        if not files:
            (aside / "folder").mkdir(parents=True, mode=0o700)
        return _together(files)

    def _source(self, upstream: Upstream | None) -> Iterator[tuple[str, Iterator[bytes]]]:
        uri = self.wanted.source_uri
        parts = urlsplit(uri)
        if upstream is not None:
            yield from read_output(upstream, uri)
        elif parts.scheme == "file" and (uploaded := self._uploaded()) is not None:
            yield from uploaded
        elif parts.scheme == "file":
            yield from read_local(Path(unquote(parts.path)), uri)
        elif parts.scheme == "s3":
            bucket, key = bucket_and_key(uri)
            yield from Bucket(bucket).read(key, uri)
        else:
            yield ("", read_https(uri, self.config, self.transfer))

    def _uploaded(self) -> Iterator[tuple[str, Iterator[bytes]]] | None:
        """Return what the submitting machine brought along, if it did."""
        sha256 = (self.wanted.sha256 or "").removeprefix("sha256:")
        is_folder = self.uri.endswith("/")
        key = (tree_key if is_folder else blob_key)(sha256)
        if not sha256 or urlsplit(self.uri).netloc or self.objects.piece(key, 0, 0) is None:
            return None
        if not is_folder:
            return iter([("", self.objects.chunks(key))])
        leaves = read_tree(self.objects, sha256, self.uri)
        return ((leaf.path, self.objects.chunks(blob_key(leaf.sha256))) for leaf in leaves)

    def _check(self, staged: _Staged) -> None:
        expected = (self.wanted.sha256 or "").removeprefix("sha256:")
        if expected and staged.sha256 != expected:
            raise ArtifactFailed(
                f"input is not what was expected: {self.wanted.source_uri} "
                f"[sha256={staged.sha256}, expected={expected}]",
                reason=Reason.INTEGRITY,
            )

    def _publish(self, aside: Path, target: Path) -> _Staged | None:
        """Give the content its name; return what bears it already, where something does.

        Then an earlier worker died, or only slept, between the name and the record: it had
        staged all of it, and a payload may be reading it.
        """
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            if (aside / "file").exists():
                os.link(aside / "file", target)  # unlike a rename, this replaces nothing
            else:
                (aside / "folder").rename(target)
        except OSError:
            if not target.exists():
                raise
            found = read_local(target, self.wanted.source_uri)
            return _together({name: _measured(content) for name, content in found})
        durable.sync_folder(target.parent)
        return None


def _measured(content: Iterable[bytes], write: Callable[[bytes], object] = len) -> _Staged:
    digest, size = hashlib.sha256(), 0
    for chunk in content:
        digest.update(chunk)
        size += len(chunk)
        write(chunk)
    return _Staged(size, digest.hexdigest())


def _together(files: Mapping[str, _Staged]) -> _Staged:
    if "" in files:
        return files[""]
    size = sum(staged.size for staged in files.values())
    lines = "".join(f"{files[name].sha256}  {name}\n" for name in sorted(files))
    return _Staged(size, hashlib.sha256(lines.encode()).hexdigest())
