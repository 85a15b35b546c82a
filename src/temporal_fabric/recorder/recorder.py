"""The recorder of one attempt: reads what is new, seals it, knows the last values.

It holds nothing that matters: a recorder that dies between two segments leaves the lines in
their files and the cursor in the last segment, and the next one reads them again.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from temporal_fabric.failpoints import FailPoint, reach
from temporal_fabric.holes import has_hole
from temporal_fabric.recorder import segments
from temporal_fabric.recorder.lines import MARK, LineRefused, Row, note, read_line
from temporal_fabric.recorder.sources import Piece, read_piece

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STDOUT = "stdout.log"
_STDERR = "stderr.log"
_SOURCES = ("telemetry.jsonl", STDOUT)
_REJECTED = "rejected.jsonl"
_PIECES = 8
"""Pieces of one source in one poll."""

_LIVE_METRICS = 12
_LOOK_BACK = 1000
"""Rows of the newest segment from which an adopted run's last values are known."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one attempt may record."""

    rows_per_s: float = 20_000.0
    burst_rows: float = 1_000_000.0
    buffer_rows: int = 250_000
    """Rows of one segment; as many wait in memory while the disk is full."""

    rejected_bytes: int = 1 << 20
    first_seal_s: float = 1.0
    last_seal_s: float = 30.0


class Recorder:
    """Records one epoch of one experiment. Not for several threads at once.

    Args:
        folder: The attempt's folder: the sources are read there, segments are sealed there.
        epoch: The attempt's epoch.
        redact: Hides secrets in what was read, before anything else sees it.
        limits: What is recorded at most.
    """

    def __init__(
        self,
        folder: Path,
        epoch: int,
        redact: Callable[[bytes], bytes] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._folder = folder
        self._epoch = epoch
        self._redact = redact
        self._limits = limits or Limits()
        self._tokens = self._limits.burst_rows
        self._refilled = self._began = self._sealed = time.monotonic()
        self._live: dict[str, Any] = {}
        self._trouble = self._stage = ""
        self._rows: list[Row] = []
        self._number, self._cursor = 0, segments.Cursor()
        self._adopt()

    @property
    def live(self) -> dict[str, Any]:
        """The last progress, stage and metrics, and how far the recorder has come."""
        return self._live

    @property
    def final(self) -> bool:
        """Whether everything the payload wrote is sealed."""
        return self._cursor.final

    @property
    def idle(self) -> bool:
        """Whether a poll would find nothing to read and nothing to seal; costs two file sizes."""
        offsets = self._cursor.offsets
        return self._cursor.final or (
            not self._rows
            and all(_size(self._folder / name) == offsets.get(name, 0) for name in _SOURCES)
        )

    def poll(self) -> None:
        """Read what is new; seal it where that is due. A full disk is told, and tried again."""
        if self._cursor.final:
            return
        self._read(ended=False)
        age = time.monotonic() - self._sealed
        # Few rows a second would make many small files of a long run.
        wait = min(
            self._limits.last_seal_s,
            self._limits.first_seal_s + (time.monotonic() - self._began) / 20,
        )
        if len(self._rows) >= self._limits.buffer_rows or (self._rows and age >= wait):
            self.seal()

    def seal(self, *, final: bool = False) -> bool:
        """Seal what was read; say whether nothing is left to be sealed."""
        cursor = self._cursor.copy()
        cursor.final = final
        try:
            reach(FailPoint.RECORDER_READ)
            table = segments.from_rows(self._epoch, self._rows)
            if not segments.seal(self._folder, self._number + 1, table, cursor):
                # Another supervisor of this attempt, one that slept or woke, was faster.
                self._adopt()
                return self._cursor.final
        except OSError as exc:
            if not self._trouble:
                self._tell("recorder", problem=str(exc))
            self._trouble = str(exc)
            return False
        reach(FailPoint.RECORDER_SEALED)
        self._cursor, self._number, self._trouble = cursor, self._number + 1, ""
        self._rows = []
        self._sealed = time.monotonic()
        return True

    def finish(self) -> bool:
        """Read and seal the rest once the payload has ended; repeating it changes nothing.

        Returns:
            Whether everything is sealed; False where the disk is full.
        """
        while not self._cursor.final:
            if not self._sealed_in_time():
                return False
            while self._read(ended=True):
                if not self._sealed_in_time():
                    return False
            if not (self._cursor.lines or self._cursor.rejected or self._rows):
                return True
            if self._cursor.rejected:
                self._tell("rejected", lines=self._cursor.rejected)
            if not self.seal(final=True) and self._trouble:
                return False
        return True

    def _sealed_in_time(self) -> bool:
        return len(self._rows) < self._limits.buffer_rows or self.seal() or not self._trouble

    def _adopt(self) -> None:
        """Go on behind the newest segment."""
        self._number, self._cursor = segments.last(self._folder)
        self._rows = []
        for _, path in segments.paths(self._folder)[-1:]:
            table = segments.read(path)
            if table is not None:
                newest = table.slice(max(0, len(table) - _LOOK_BACK)).to_pylist()
                self._remember([_row(fields) for fields in newest])

    def _read(self, *, ended: bool) -> bool:
        """Read some pieces of each source; say whether there is more."""
        if len(self._rows) >= 2 * self._limits.buffer_rows:
            return False
        self._refill()
        dropped, more, first = self._cursor.dropped, False, len(self._rows)
        for name in _SOURCES:
            for _ in range(_PIECES):
                piece = self._next(name, ended=ended)
                self._take(name, piece)
                if not piece.more:
                    break
            else:
                more = True
        self._tell_of_holes()
        if self._cursor.dropped > dropped:
            lost = self._cursor.dropped - dropped
            self._tell("dropped", lines=lost, rows_per_s=self._limits.rows_per_s)
        self._remember(self._rows[first:])
        return more

    def _next(self, name: str, *, ended: bool) -> Piece:
        cursor = self._cursor
        piece = read_piece(
            self._folder / name,
            cursor.offsets.get(name, 0),
            skipping=cursor.skipping.get(name, False),
            ended=ended,
        )
        cursor.offsets[name], cursor.skipping[name] = piece.offset, piece.skipping
        if piece.truncated:
            self._tell("recorder", problem=f"{name} became shorter; it is read from its beginning")
        return piece

    def _take(self, name: str, piece: Piece) -> None:
        data = piece.data if self._redact is None else self._redact(piece.data)
        marked = name == STDOUT
        if not marked and piece.too_long:
            self._reject(b"", "the line is too long")
        if not data or (marked and MARK not in data):
            return
        lines = _lines(data, marked=marked)
        for index, line in enumerate(lines):
            if self._tokens < 1 and index < len(lines) - 1:
                # Of a flood the last line of each piece is kept: progress stays current.
                self._cursor.dropped += len(lines) - 1 - index
                self._take_line(lines[-1])
                return
            self._take_line(line)

    def _take_line(self, line: bytes) -> None:
        self._tokens -= 1
        try:
            rows = read_line(line, self._cursor.lines + 1, _now_ms())
        except LineRefused as exc:
            self._reject(line, str(exc))
            return
        rows = [row for row in rows if not self._said(row)]
        self._tokens -= len(rows) - 1
        self._cursor.lines += 1
        self._cursor.rows += len(rows)
        self._rows.extend(rows)

    def _said(self, row: Row) -> bool:
        """Say whether a row only repeats the stage, as a payload may do with every line."""
        if row.name != "stage" or row.detail is None:
            return False
        said, self._stage = self._stage, row.detail
        return said == row.detail

    def _reject(self, line: bytes, why: str) -> None:
        self._cursor.rejected += 1
        if self._cursor.rejected == 1:
            self._tell("rejected", lines=1, why=why)
        entry = {"why": why, "line": line[:1000].decode(errors="replace")}
        # Kept for a person to look at; what counts is the number, which the cursor has.
        with suppress(OSError):
            path = self._folder / _REJECTED
            if not path.is_symlink() and _size(path) < self._limits.rejected_bytes:
                with path.open("a") as file:
                    file.write(json.dumps(entry) + "\n")

    def _tell_of_holes(self) -> None:
        """Say once of each stream that the launcher has begun to cut it."""
        for name in (STDOUT, _STDERR):
            if name not in self._cursor.cut and has_hole(self._folder / name):
                self._cursor.cut.append(name)
                self._tell("truncated", stream=name.removesuffix(".log"))

    def _tell(self, name: str, **detail: Any) -> None:
        self._cursor.lines += 1
        self._cursor.rows += 1
        self._rows.append(note(self._cursor.lines, _now_ms(), name, **detail))

    def _refill(self) -> None:
        at = time.monotonic()
        gained = (at - self._refilled) * self._limits.rows_per_s
        self._tokens = min(self._limits.burst_rows, self._tokens + gained)
        self._refilled = at

    def _remember(self, rows: list[Row]) -> None:
        """Keep the newest values for the heartbeat; a new table, as another thread reads it."""
        live = dict(self._live)
        metrics: dict[str, Any] = dict(live.get("metrics", {}))
        for row in rows:
            if row.name == "progress" and row.value is not None:
                live["progress"] = row.value
            elif row.value is not None:
                metrics.pop(row.name, None)
                metrics[row.name] = row.value
            elif row.name == "stage" and row.detail:
                live["stage"] = json.loads(row.detail)["stage"]
            if row.step is not None:
                live["step"] = row.step
        shown = list(metrics.items())[-_LIVE_METRICS:]
        live["metrics"] = dict(shown)
        live["cursor"] = {
            "segment": self._number,
            "rows": self._cursor.rows,
            **self._cursor.offsets,
        }
        self._live = live


def _lines(data: bytes, *, marked: bool) -> list[bytes]:
    if marked:
        return [line[len(MARK) :] for line in data.split(b"\n") if line.startswith(MARK)]
    return [line for line in data.split(b"\n") if line.strip()]


def _row(fields: dict[str, Any]) -> Row:
    at = int(fields["time"].timestamp() * 1000)
    return Row(fields["seq"], at, fields["step"], fields["name"], fields["value"], fields["detail"])


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
