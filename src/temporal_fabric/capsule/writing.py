"""Writing a capsule: every file durable first, the manifest last.

Writing is idempotent: a second seal after a crash writes the same files again, and a capsule
whose manifest exists is left as it is.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from dataclasses import asdict, replace
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temporal_fabric.capsule.manifest import MANIFEST, Entry, Manifest
from temporal_fabric.clock import now
from temporal_fabric.errors import StaleEpoch
from temporal_fabric.failpoints import FailPoint, reach
from temporal_fabric.holes import closed
from temporal_fabric.messages import Sealed
from temporal_fabric.recorder import flow_runs
from temporal_fabric.recorder.merging import compensation_events, merge
from temporal_fabric.states import Reason, State
from temporal_fabric.workplace import Workplace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator, Mapping

    from temporal_fabric.outcomes import ExperimentResult
    from temporal_fabric.store import Store

_STREAMS = ("stdout.log", "stderr.log")
_LOGS = (
    *_STREAMS,
    "error.txt",
    "telemetry.jsonl",
    "rejected.jsonl",
    "environment.log",
    "environment.txt",
)


class CapsuleWriter:
    """Writes the capsule of one run.

    Args:
        store: Where the capsule goes.
        key: The capsule's folder in the store.
        runs: The host's working folders, whose files go into the capsule.
    """

    def __init__(self, store: Store, key: str, runs: Path) -> None:
        self._store = store
        self._key = key
        self._runs = runs
        self._entries: list[Entry] = []

    async def seal(
        self, result: ExperimentResult, body: Mapping[str, Any], run: Mapping[str, str]
    ) -> tuple[Sealed, dict[str, Any]]:
        """Write everything, then the manifest.

        Args:
            result: The run's terminal record.
            body: The admitted request body.
            run: Workflow id and run id, for the manifest.

        Returns:
            Where the capsule lies, and the record in it: FAILED(INTEGRITY) where an output
            is no longer what the attempt hashed.

        Raises:
            StoreError: the store is full or cannot be reached; nothing is sealed.
            StaleEpoch: the run was sealed elsewhere, without the files of this host.
        """
        uri = f"{self._store.root}/{self._key}"
        if (sealed := await manifest_of(self._store, self._key)) is not None:
            return await self._before(sealed)
        await _together(
            self._put("request.json", _json(body)),
            *(self._put_log(result, epoch, name) for epoch in result.epochs for name in _LOGS),
        )
        integrity = await self._put_artifacts(result, redacted=flow_runs.is_redacted(body))
        if integrity:
            result = failed(result, Reason.INTEGRITY, integrity)
        result = replace(result, capsule=uri)
        record = asdict(result)
        await _together(
            self._put("events.jsonl", _events(result)),
            self._put_tables(result),
            self._put("result.json", _json(record)),
        )
        entries = tuple(sorted(self._entries, key=attrgetter("path")))
        manifest = Manifest(_experiment(result, run, body), entries, now()).dump()
        reach(FailPoint.CAPSULE_WRITTEN)
        if not await self._store.create(f"{self._key}/{MANIFEST}", manifest):
            return await self._before(await manifest_of(self._store, self._key) or b"")
        reach(FailPoint.CAPSULE_SEALED)
        return (_sealed(uri, manifest, record), record)

    async def _before(self, manifest: bytes) -> tuple[Sealed, dict[str, Any]]:
        """Return what an earlier seal has committed."""
        recorded = json.loads(await self._store.read(f"{self._key}/result.json") or b"{}")
        return (_sealed(f"{self._store.root}/{self._key}", manifest, recorded), recorded)

    async def _put_log(self, result: ExperimentResult, epoch: int, name: str) -> None:
        place = Workplace.of(self._runs, result.tenant, result.request_id, epoch)
        source = place.folder / name
        if _is_kept(source):
            await asyncio.to_thread(lambda: self._copy(f"logs/{epoch}/{name}", closed(source)))

    async def _put_tables(self, result: ExperimentResult) -> None:
        """Merge what was recorded of all epochs, and the timeline."""
        places = {
            epoch: Workplace.of(self._runs, result.tenant, result.request_id, epoch)
            for epoch in result.epochs
        }
        folders = {epoch: place.folder for epoch, place in places.items()}
        last = places[result.epoch]
        target, run = last.root / "tables", last.checkpoints
        tables = await asyncio.to_thread(merge, folders, result, target, run)
        await _together(
            *(
                self._put(name, table) if isinstance(table, bytes) else self._put_file(name, table)
                for name, table in tables.items()
            )
        )

    async def _put_artifacts(self, result: ExperimentResult, *, redacted: bool) -> str:
        """Copy the committed epoch's outputs and the checkpoints; return what does not match.

        Args:
            result: The run's terminal record.
            redacted: Leave out the data of a flow's run.
        """
        place = Workplace.of(self._runs, result.tenant, result.request_id, result.epoch)
        wrong = ""
        for output in result.outputs:
            entry = await self._put_file(f"artifacts/{output.path}", place.output / output.path)
            if (entry.size, entry.sha256) != (output.size, output.sha256):
                wrong = f"output changed after the attempt ended: {output.path}"
        for path in _files(place.checkpoints):
            name = path.relative_to(place.checkpoints).as_posix()
            if redacted and flow_runs.holds_data(name):
                continue
            await self._put_file(f"checkpoints/{name}", path)
        return wrong

    async def _put(self, name: str, data: bytes) -> None:
        def put() -> str:
            self._store.objects.replace(f"{self._key}/{name}", data)
            return hashlib.sha256(data).hexdigest()

        self._entries.append(Entry(name, len(data), await asyncio.to_thread(put)))

    async def _put_file(self, name: str, source: Path) -> Entry:
        return await asyncio.to_thread(self._copy, name, source)

    def _copy(self, name: str, source: Path) -> Entry:
        size, digest = self._store.objects.put_file(f"{self._key}/{name}", source)
        entry = Entry(name, size, digest)
        self._entries.append(entry)
        return entry


async def manifest_of(store: Store, key: str) -> bytes | None:
    """Return the manifest of a capsule, or None where it is not sealed.

    Raises:
        StaleEpoch: it never will be: the run was sealed elsewhere.
    """
    data = await store.read(f"{key}/{MANIFEST}")
    if data is not None and (counts := Manifest.parse(data).given_up_for):
        raise StaleEpoch(f"the run was sealed without this host [key={key}, sealed as={counts}]")
    return data


async def _together(*writes: Awaitable[object]) -> None:
    """Wait for all of them, then raise what the first failed one raised.

    Writes that wait for the disk side by side share its flushes. None may go on once the seal
    has failed: the next try writes the same files.
    """
    for ended in await asyncio.gather(*writes, return_exceptions=True):
        if isinstance(ended, BaseException):
            raise ended


def failed(result: ExperimentResult, reason: str, message: str) -> ExperimentResult:
    """Return the record of a run that fails only now that its capsule is sealed."""
    *before, last = result.timeline
    return replace(
        result,
        state=State.FAILED,
        reason=reason,
        message=message,
        timeline=[*before, replace(last, state=State.FAILED, reason=reason)],
    )


def _is_kept(log: Path) -> bool:
    """Return whether a log goes into the capsule: of what nobody wrote to, the streams alone."""
    if not log.is_file() or log.is_symlink():
        return False
    return log.name in _STREAMS or log.stat().st_size > 0


def _sealed(uri: str, manifest: bytes, record: Mapping[str, Any]) -> Sealed:
    reason = str(record.get("reason") or "")
    broken = reason in {Reason.INTEGRITY, Reason.OUTPUT_MISSING}
    integrity = str(record.get("message")) if broken else ""
    return Sealed(uri, hashlib.sha256(manifest).hexdigest(), integrity, reason if broken else "")


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True).encode() + b"\n"


def _events(result: ExperimentResult) -> bytes:
    """Return the timeline as events, one JSON object a line, numbered without a gap."""
    told = [{"event": "state", **asdict(moment)} for moment in result.timeline]
    told += compensation_events(result)
    told.sort(key=itemgetter("at"))
    rows = (
        json.dumps({"seq": seq, **event}, ensure_ascii=False) for seq, event in enumerate(told, 1)
    )
    return "".join(f"{row}\n" for row in rows).encode()


def _experiment(
    result: ExperimentResult, run: Mapping[str, str], body: Mapping[str, Any]
) -> dict[str, Any]:
    fields = ("tenant", "request_id", "digest", "state", "reason", "message", "backend", "epoch")
    chosen = {name: getattr(result, name) for name in fields}
    plain = {key: str(v) if not isinstance(v, int) else v for key, v in chosen.items()}
    last = next((ended for ended in result.attempts if ended.epoch == result.epoch), None)
    inputs = [_filled(asdict(given)) for given in last.inputs] if last else []
    more = {"redact_artifacts": True} if flow_runs.is_redacted(body) else dict[str, Any]()
    more |= {"gpus": last.gpus} if last and last.gpus else {}
    return plain | dict(run) | more | ({"inputs": inputs} if inputs else {})


def _filled(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value != ""}


def _files(folder: Path) -> Iterator[Path]:
    """Yield the regular files below a folder; links a payload planted are left out."""
    for root, folders, names in os.walk(folder, followlinks=False):
        folders.sort()
        for name in sorted(names):
            path = Path(root) / name
            if path.is_file() and not path.is_symlink():
                yield path
