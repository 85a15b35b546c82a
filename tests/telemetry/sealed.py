"""Sealed capsules, made by the fabric's own recorder and writer of what attempts left behind."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from temporal_fabric import durable
from temporal_fabric.capsule.reading import Capsule
from temporal_fabric.capsule.writing import CapsuleWriter
from temporal_fabric.outcomes import AttemptResult, ExperimentResult, Moment, OutputFile
from temporal_fabric.recorder.recorder import Recorder
from temporal_fabric.states import State
from temporal_fabric.store.store import Store
from temporal_fabric.workplace import Workplace
from tests.bodies import shell

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from temporal_fabric.store import Objects

START = "2026-01-05T08:00:00.000Z"
"""When every such run began."""

_UNIX = 1_767_600_000


def at(seconds: float) -> float:
    """Return Unix seconds, so long after the beginning of the run."""
    return _UNIX + seconds


def stamp(seconds: int) -> str:
    """Return the time so many seconds, less than an hour, after the beginning of the run."""
    return f"2026-01-05T08:{seconds // 60:02d}:{seconds % 60:02d}.000Z"


def seal(
    objects: Objects,
    runs: Path,
    *,
    left: Mapping[int, Mapping[str, str]],
    body: Mapping[str, Any] | None = None,
    request_id: str = "one",
    attempts: Mapping[int, Mapping[str, Any]] | None = None,
    **fields: Any,
) -> Capsule:
    """Seal a capsule.

    Args:
        objects: The store.
        runs: Where attempts lie on the host.
        left: For each epoch, the content of files below its folder; those below ``output/``
            become outputs.
        body: The request.
        request_id: Its id.
        attempts: For each epoch, further fields of its record.
        fields: Further fields of the run's record.
    """
    _leave_behind(runs, request_id, left)
    ended = _attempts(runs, request_id, left, attempts or {})
    record = ExperimentResult(**_record(request_id, ended) | fields)
    writer = CapsuleWriter(Store(objects), f"capsules/default/{request_id}/1", runs)
    run = {"workflow_id": f"experiment/default/{request_id}", "run_id": "run"}
    asked = dict(body or shell("true")) | {"id": request_id}
    sealed, _ = asyncio.run(writer.seal(record, asked, run))
    return Capsule.open(sealed.capsule)


def _leave_behind(runs: Path, request_id: str, left: Mapping[int, Mapping[str, str]]) -> None:
    for number, contents in left.items():
        place = Workplace.of(runs, "default", request_id, number)
        for name, text in contents.items():
            path = place.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assert Recorder(place.folder, number).finish()


def _attempts(
    runs: Path,
    request_id: str,
    left: Mapping[int, Mapping[str, str]],
    more: Mapping[int, Mapping[str, Any]],
) -> list[AttemptResult]:
    ended: list[AttemptResult] = []
    for number in left:
        given: dict[str, Any] = {
            "epoch": number,
            "backend": "local@host",
            "ok": number == max(left),
            "started_at": stamp(10 * number),
            "ended_at": stamp(600),
            "outputs": _outputs(Workplace.of(runs, "default", request_id, number).output),
        }
        ended.append(AttemptResult(**given | dict(more.get(number, {}))))
    return ended


def _record(request_id: str, ended: list[AttemptResult]) -> dict[str, Any]:
    epoch = max(attempt.epoch for attempt in ended)
    timeline = [
        Moment(State.QUEUED, START),
        Moment(State.RUNNING, stamp(10), backend="local@host", epoch=epoch),
        Moment(State.SUCCEEDED, stamp(600), backend="local@host", epoch=epoch),
    ]
    return {
        "state": State.SUCCEEDED,
        "tenant": "default",
        "request_id": request_id,
        "exit_code": 0,
        "backend": "local@host",
        "epoch": epoch,
        "started_at": START,
        "ended_at": stamp(600),
        "attempts": ended,
        "outputs": ended[-1].outputs,
        "timeline": timeline,
    }


def _outputs(folder: Path) -> list[OutputFile]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [OutputFile(str(path.relative_to(folder)), *durable.hash_file(path)) for path in paths]
