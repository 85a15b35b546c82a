"""What people and the recorder read of a run on a device, in the attempt's own folder.

Standard output is a protocol of the steps. It is made of the journal alone, and a journal only
grows, so whoever writes it, and however often, it is the same text, and only its end is new.
"""

from __future__ import annotations

import base64
import json
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from temporal_fabric import durable
from temporal_fabric.adapters import lab_journal as journals
from temporal_fabric.adapters import lab_pausing
from temporal_fabric.workplace import output_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from temporal_fabric.adapters.lab_journal import Standing
    from temporal_fabric.requests.engines import LabPayload
    from temporal_fabric.workplace import Workplace

_LONGEST = 300
_SAID = {
    journals.SENT: "the device performs it, execution {uuid}",
    journals.UNKNOWN: "unknown: {says}",
    journals.FAILED: "failed: {says}",
    journals.STOPPED: "stopped: {says}",
    journals.REFUSED: "not performed",
}

_STILL = {
    lab_pausing.ASKED: "to stand still",
    lab_pausing.STANDS: "stands still",
    lab_pausing.GOES_ON: "goes on",
}


class Protocol:
    """Writes what one attempt leaves in its folder.

    Args:
        place: The attempt's folders.
        device: Name of the device.
    """

    def __init__(self, place: Workplace, device: str) -> None:
        self._place, self._device = place, device

    def show(self, standing: Standing) -> None:
        """Bring standard output and error up to what the journal says."""
        if not self._place.folder.exists():
            return  # its run is sealed: nobody reads it here any more
        lines = [f"{line}\n" for line in _lines(standing, self._place.epoch, self._device)]
        _extend(self._place.stdout, "".join(lines).encode())
        attempt = standing.attempts.get(self._place.epoch)
        if attempt is not None and attempt.end is not None and attempt.end["message"]:
            _extend(self._place.stderr, f"{attempt.end['message']}\n".encode())

    def teller(
        self, plan: LabPayload, place: int, step: str
    ) -> Callable[[Mapping[str, object]], None]:
        """Return what records a step's progress and its intermediate responses as telemetry."""
        self._record({"step": place, "stage": step})
        last = [-1.0]

        def tell(said: Mapping[str, object]) -> None:
            row: dict[str, object] = {"step": place, **said}
            done = row.pop("progress", None)
            if isinstance(done, float) and done != last[0]:
                last[0] = done
                row["progress"] = round((place - 1 + min(max(done, 0.0), 1.0)) / len(plan.steps), 6)
            if any(isinstance(value, str) for value in said.values()):
                row["event"] = step
            if len(row) > 1:
                self._record(row)

        return tell

    def keep_responses(self, standing: Standing, plan: LabPayload) -> None:
        """Write the responses of the steps that are declared as outputs."""
        for output in plan.outputs:
            path = output_path(output.source_path)
            issued = standing.issued.get(((path or "").removesuffix(".json"), False))
            if path is not None and issued is not None:
                durable.replace(self._place.output / path, _json(issued.responses) + b"\n")

    def _record(self, row: Mapping[str, object]) -> None:
        path = self._place.folder / "telemetry.jsonl"
        if path.parent.exists():
            with path.open("ab") as file:
                file.write(json.dumps(row).encode() + b"\n")


def plain(value: Any) -> Any:
    """Return a device's response as JSON has it."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1).encode()


def _extend(path: Path, text: bytes) -> None:
    # At its own place: two that write at once write the same.
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        size = os.fstat(fd).st_size
        os.pwrite(fd, text[size:], size)
    finally:
        os.close(fd)


def _lines(standing: Standing, epoch: int, device: str) -> Iterator[str]:
    attempt = standing.attempts.get(epoch)
    plan = attempt.plan if attempt else None
    places = {step.command_id: place for place, step in enumerate(plan.steps, 1)} if plan else {}
    sent: dict[tuple[str, bool], float] = {}
    before: set[str] = set()
    for record in standing.records:
        if record["is"] == journals.DONE and record["epoch"] != epoch:
            (before.discard if record["undoes"] else before.add)(record["step"])
        if record["epoch"] != epoch:
            continue
        if record["is"] == "accepted":
            earlier = f", {len(before)} of them done before" if before else ""
            yield f"{_time(record)} {device}: {len(places)} steps{earlier}"
        elif said := _of_run(record):
            yield f"{_time(record)} {said}"
        elif "step" in record:
            key = (record["step"], record["undoes"])
            if record["is"] == journals.INTENDED:
                sent[key] = record["at"]
            what = f"{'undo ' if record['undoes'] else ''}{record['step']}"
            place = f"{places.get(record['step'], 0)}/{len(places)}"
            yield f"{_time(record)} {place} {what}: {_said(record, sent.get(key))}"


def _of_run(record: Mapping[str, Any]) -> str:
    """Return what a record says of the whole run; empty where it says nothing of it."""
    if record["is"] == "turned":
        return f"{_one_line(record['message'])}; undoing what was done"
    if record["is"] == "end":
        return _end(record)
    if "halted_by" in record:
        why = f": {record['why']}" if record["why"] else ""
        return f"halted by {_one_line(record['halted_by'] + why)}"
    return _STILL.get(record["is"], "")


def _said(record: Mapping[str, Any], sent: float | None) -> str:
    if "by" in record:
        return f"{record['is']}, says {record['by']}"
    if record["is"] == journals.INTENDED:
        return str(record["command"])
    if record["is"] == journals.DONE:
        took = f" in {record['at'] - sent:.1f} s" if sent is not None else ""
        told = json.dumps(record["responses"], ensure_ascii=False) if record["responses"] else ""
        return f"done{took}{f', {_one_line(told)}' if told else ''}"
    return _one_line(_SAID[record["is"]].format_map(record))


def _end(record: Mapping[str, Any]) -> str:
    if record["question"]:
        return f"a person is asked: {_one_line(record['question'])}"
    return f"ended: {_one_line(record['message'])}" if record["message"] else "all steps are done"


def _one_line(text: str) -> str:
    flat = "".join(char if char.isprintable() else " " for char in text)
    return flat if len(flat) <= _LONGEST else f"{flat[:_LONGEST]}..."


def _time(record: Mapping[str, Any]) -> str:
    return f"{datetime.fromtimestamp(record['at'], UTC):%H:%M:%S}"
