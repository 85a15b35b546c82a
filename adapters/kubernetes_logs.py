"""Following a container's log into a file: each line once, whoever followed it before.

The API gives a log by whole seconds, and each line with its time. How far the file has come is
kept beside it: the time of its last line, how many lines of that very time it has, and its size.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Read = Callable[[str | None, int], bytes]
    """Returns the log with times, since a time, up to so many bytes."""

_BYTES = 4 * 1024 * 1024
_MOST_BYTES = 256 * 1024 * 1024
GAP = b"[temporal-fabric: output is missing here, its node had rotated the log away]\n"


@dataclass(frozen=True, slots=True)
class _Reached:
    """How far a file has come."""

    time: str = ""
    lines: int = 0
    size: int = 0


class FollowedLog:
    """The log of one container, in a file.

    Args:
        path: The file; nobody else writes to it.
        read: Reads the log.
        mark_gaps: Whether a line says where the log was rotated away.
        redact: Hides what must not be kept.
    """

    def __init__(
        self,
        path: Path,
        read: Read,
        *,
        mark_gaps: bool = True,
        redact: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self._path, self._read = path, read
        self._mark_gaps, self._redact = mark_gaps, redact
        self._kept = path.with_name(f".{path.name}.at")

    def advance(self) -> None:
        """Append what the log has more than the file; call it under a lock of the attempt.

        Raises:
            BackendUnknown: the log cannot be read now.
            OSError: the file cannot be written.
        """
        limit, reached = _BYTES, self._reached()
        while True:
            text = self._read(_second(reached.time), limit)
            lines = list(_lines(text))
            new = list(_new(lines, reached))
            if new:
                reached = self._append(new, reached, gap=_gap(lines, reached))
                limit = _BYTES
            elif len(text) >= limit and limit < _MOST_BYTES:
                # One second, or one line, is longer than what was asked for.
                limit *= 4
                continue
            if len(text) < limit:
                return

    def _reached(self) -> _Reached:
        try:
            found = _Reached(**json.loads(self._kept.read_bytes()))
        except FileNotFoundError:
            found = _Reached()
        # What is more in the file was written by a worker that died before it could say so.
        with self._path.open("ab") as file:
            if file.tell() > found.size:
                os.ftruncate(file.fileno(), found.size)
            elif file.tell() < found.size:
                # The machine lost power: the file is made anew from what the log still has.
                found = _Reached()
                os.ftruncate(file.fileno(), 0)
        return found

    def _append(self, new: list[tuple[str, bytes]], reached: _Reached, *, gap: bool) -> _Reached:
        content = b"".join(line for _, line in new)
        if self._redact is not None:
            content = self._redact(content)
        if gap and self._mark_gaps:
            content = GAP + content
        with self._path.open("ab") as file:
            file.write(content)
            size = file.tell()
        last = new[-1][0]
        lines = sum(time == last for time, _ in new) + (
            reached.lines if last == reached.time else 0
        )
        found = _Reached(last, lines, size)
        beside = self._kept.with_suffix(".part")
        beside.write_text(json.dumps(asdict(found)))
        beside.replace(self._kept)
        return found


def _lines(text: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield time and content of each whole line; a carriage return ends none."""
    start = 0
    while (end := text.find(b"\n", start) + 1) > 0:
        time, space, content = text[start:end].partition(b" ")
        if space:
            yield (time.decode(errors="replace"), content)
        start = end


def _new(lines: list[tuple[str, bytes]], reached: _Reached) -> Iterator[tuple[str, bytes]]:
    """Yield the lines that the file lacks."""
    left = reached.lines
    past = _nanoseconds(reached.time)
    for time, content in lines:
        at = _nanoseconds(time)
        if at < past:
            continue
        if at == past and left:
            left -= 1
            continue
        yield (time, content)


def _gap(lines: list[tuple[str, bytes]], reached: _Reached) -> bool:
    """Return whether the line that the file ends with is in the log no more."""
    return bool(reached.time) and all(time != reached.time for time, _ in lines)


def _second(time: str) -> str | None:
    """Return the whole second before a time, as the API takes it."""
    head, _, tail = time.partition(".")
    return head + tail.lstrip("0123456789") if time else None


def _nanoseconds(time: str) -> int:
    """Return a time with nine decimals as a number; 0 for none, or for what is no time."""
    head, _, tail = time.partition(".")
    digits = tail[: len(tail) - len(tail.lstrip("0123456789"))]
    zone = tail[len(digits) :]
    try:
        whole = datetime.fromisoformat(head + zone)
    except ValueError:
        return 0
    return int(whole.timestamp()) * 10**9 + int(digits.ljust(9, "0")[:9] or 0)
